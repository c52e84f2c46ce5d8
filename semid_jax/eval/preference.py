"""Where the truth is known: are a user's weights learned, and are drifts noticed?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DRIFT_KINDS: Mapping[str, int] = {"alpha": 1, "interest": 2}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of float[n] with float[n], ties by mean rank.

    Returns:
      A number in [-1, 1]; 0.0 where one side is constant or n < 2, as it then orders nothing.
    """
    from scipy.stats import rankdata  # late: it takes a second, which every start would wait for

    if len(a) < 2:
        return 0.0
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    ranks_a -= ranks_a.mean()
    ranks_b -= ranks_b.mean()
    scale = np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum())
    return float((ranks_a * ranks_b).sum() / scale) if scale > 0 else 0.0


def spearman_alpha(
    learned: np.ndarray, planted: np.ndarray, users: np.ndarray | None = None
) -> float:
    """How well learned weights order the users, averaged over modalities.

    Args:
      learned: float[U, M], weights the model gives each user.
      planted: float[U, M], the true weights.
      users: bool[U], whom to count (as those with 20 or more interactions); None = all.

    Returns:
      The mean over modalities of Spearman's correlation across users.
    """
    if learned.shape != planted.shape:
        raise ValueError(f"learned {learned.shape} and planted {planted.shape} weights differ")
    chosen = slice(None) if users is None else users
    learned, planted = learned[chosen], planted[chosen]
    columns = range(learned.shape[1])
    return float(np.mean([spearman(learned[:, m], planted[:, m]) for m in columns]))


def drift_scores(
    fired_users: np.ndarray,
    fired_times: np.ndarray,
    drift_time: np.ndarray,
    drift_kind: np.ndarray,
    window: int = 10,
) -> dict[str, float]:
    """Scores a drift detector against the planted drifts, one hit per drift.

    A trigger hits when it fires from `drift_time` to `drift_time + window` interactions, and the
    first to do so takes the drift; every other trigger, also a second one in the window, is false.

    Args:
      fired_users: int[F], user of each trigger.
      fired_times: int[F], position in the user's history at which it fired.
      drift_time: int[U], position of the first interaction after the drift, -1 = none.
      drift_kind: int[U], 0 none, 1 of alpha, 2 of interest.
      window: interactions after the drift in which a trigger still hits.

    Returns:
      "drift_precision", "drift_recall", "drift_f1" over all users; the same with "_alpha" and
      "_interest" over the users of that kind; "false_trigger_rate", the share of drift-free users
      with any trigger. All 0.0 where there is nothing to count.
    """
    fired_users, fired_times = np.asarray(fired_users), np.asarray(fired_times)
    users = len(drift_kind)
    planted = drift_kind > 0
    delay = fired_times - drift_time[fired_users]
    inside = planted[fired_users] & (delay >= 0) & (delay <= window)
    hit = np.zeros(users, bool)
    hit[fired_users[inside]] = True
    triggers = np.bincount(fired_users, minlength=users)

    scores = _precision_recall_f1("", hit, triggers, planted, np.ones(users, bool))
    for name, kind in DRIFT_KINDS.items():
        of_kind = drift_kind == kind
        scores |= _precision_recall_f1(f"_{name}", hit, triggers, planted, of_kind)
    free = ~planted
    scores["false_trigger_rate"] = float((triggers[free] > 0).mean()) if free.any() else 0.0
    return scores


def _precision_recall_f1(
    suffix: str, hit: np.ndarray, triggers: np.ndarray, planted: np.ndarray, users: np.ndarray
) -> dict[str, float]:
    """Counts over `users` bool[U]: drifts hit, triggers fired, drifts planted."""
    hits = int(hit[users].sum())
    fired, drifts = int(triggers[users].sum()), int(planted[users].sum())
    return {
        f"drift_precision{suffix}": hits / fired if fired else 0.0,
        f"drift_recall{suffix}": hits / drifts if drifts else 0.0,
        f"drift_f1{suffix}": 2 * hits / (fired + drifts) if fired + drifts else 0.0,
    }
