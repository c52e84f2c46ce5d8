"""Where no truth is planted: do two halves of a history say the same of their user's weights?"""

from __future__ import annotations

import numpy as np

from semid_jax.data.sequences import popularity, split_end
from semid_jax.models.stream import Perceiver
from semid_jax.train.readings import read_ends
from semid_jax.types import Interactions, ItemFeatures

SHORTEST = 60  # train interactions of a user who is counted
FEWEST = 50  # users, below which nothing is said


def split_half(
    perceiver: Perceiver, features: ItemFeatures, interactions: Interactions, seed: int
) -> dict[str, float]:
    """Agreement of halves of train parts, drifts not looked for.

    Correlations are partial, given the mean log-popularity of both halves and the log-length, and
    means over modalities. Each half's weights are also held against what the other half's items
    say without any model: the difference of its coherence in a modality from the mean of all.

    Args:
      perceiver: of the crowd.
      features: normalised features.
      interactions: histories.
      seed: of the random halves.

    Returns:
      For "random" halves and for halves in "time": "alpha_reliability_…", the correlation of
      weights between halves; "coherence_reliability_…", that of coherence differences; and
      "alpha_coherence_…", between weights of one half and coherence of the other. Empty for one
      modality, or where fewer than FEWEST users have SHORTEST interactions.
    """
    known = split_end(interactions, "train")
    users = np.flatnonzero(known >= SHORTEST)
    if len(features.modalities) == 1 or len(users) < FEWEST:
        return {}
    log_popularity = np.log(popularity(interactions) + 1.0)
    found: dict[str, float] = {}
    for kind in ("random", "time"):
        rng = np.random.default_rng((seed, 9)) if kind == "random" else None
        halves = _halves(interactions, users, known[users] // 2, rng)
        alpha, unlike = [], []
        given = [np.log(known[users])]
        for half in halves:
            alpha.append(read_ends(perceiver, half, half.lengths)[0])
            coherence = coherences(features, half, popularity(interactions))
            unlike.append(coherence - coherence.mean(axis=1, keepdims=True))
            user = np.repeat(np.arange(len(users)), half.lengths)
            total = np.bincount(user, log_popularity[half.items], len(users))
            given.append(total / half.lengths)
        control = np.stack(given, axis=1)

        def agree(left: np.ndarray, right: np.ndarray, control: np.ndarray = control) -> float:
            columns = range(left.shape[1])
            return float(
                np.mean([partial_correlation(left[:, m], right[:, m], control) for m in columns])
            )

        found |= {
            f"alpha_reliability_{kind}": agree(*alpha),
            f"coherence_reliability_{kind}": agree(*unlike),
            f"alpha_coherence_{kind}": (agree(alpha[0], unlike[1]) + agree(alpha[1], unlike[0]))
            / 2,
        }
    return found


def _halves(
    interactions: Interactions, users: np.ndarray, half: np.ndarray, rng: np.random.Generator | None
) -> tuple[Interactions, Interactions]:
    """Each user's first `half` items and the next as many, shuffled before if `rng` is given."""
    length = 2 * half
    user = np.repeat(np.arange(len(users)), length)
    inside = np.arange(len(user)) - np.repeat(np.cumsum(length) - length, length)
    items = interactions.items[interactions.offsets[users][user] + inside]
    if rng is not None:
        items = items[np.lexsort((rng.random(len(items)), user))]
    offsets = np.concatenate([[0], np.cumsum(half)])
    first = inside < half[user]
    names, n_items = interactions.user_ids[users], interactions.n_items
    parts = [Interactions(names, items[of], offsets, None, n_items) for of in (first, ~first)]
    return parts[0], parts[1]


def coherences(
    features: ItemFeatures, interactions: Interactions, counts: np.ndarray
) -> np.ndarray:
    """How alike the items of a history are, per modality, an item being 1 to itself on average.

    Mean inner product over pairs of different places, rows of unit length, centred on the mean of
    all interactions: zero in expectation for items drawn by popularity.

    Args:
      features: normalised features.
      interactions: histories.
      counts: int64[N + 1], interactions of the crowd per item.

    Returns:
      float64[U, M], zero where fewer than two items have the modality.
    """
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)
    columns = []
    for name in features.modalities:
        has = features.present[name].astype(np.float64)
        size = np.linalg.norm(features.x[name], axis=1, keepdims=True)
        rows = features.x[name] / np.maximum(size, 1e-9) * has[:, None]
        weight = counts * has
        rows = (rows - weight @ rows / max(weight.sum(), 1e-9)) * has[:, None]
        own = (rows**2).sum(axis=1)
        n = np.bincount(user, has[interactions.items], interactions.n_users)
        sums = np.zeros((interactions.n_users, rows.shape[1]))
        np.add.at(sums, user, rows[interactions.items])
        itself = np.bincount(user, own[interactions.items], interactions.n_users)
        pairs = ((sums**2).sum(axis=1) - itself) / np.maximum(n * (n - 1), 1.0)
        columns.append(pairs / max(weight @ own / max(weight.sum(), 1e-9), 1e-9))
    return np.stack(columns, axis=1)


def partial_correlation(left: np.ndarray, right: np.ndarray, control: np.ndarray) -> float:
    """Pearson's correlation of what a linear fit on `control` leaves.

    Args:
      left: float[n].
      right: float[n].
      control: float[n, c]; a constant is added.

    Returns:
      A number in [-1, 1]; 0.0 where one side is left with nothing.
    """
    control = np.column_stack([np.ones(len(control)), control])

    def rest(values: np.ndarray) -> np.ndarray:
        left_over: np.ndarray = values - control @ np.linalg.lstsq(control, values, rcond=None)[0]
        return left_over

    a, b = rest(left), rest(right)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 1e-9 else 0.0
