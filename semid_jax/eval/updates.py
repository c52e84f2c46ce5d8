"""What an incremental update of the read side buys, costs and keeps, beside doing nothing or all.

Design part 3.7: a user whose drift was noticed may be read in the old codes ("stale"), in codes
moved step by step ("incremental", what is served), or with every item encoded anew ("full").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.eval.model import ReadSide
from semid_jax.eval.ranking import named, paired_difference, ranking_metrics, summary
from semid_jax.models.encoders import unit
from semid_jax.models.fusion import ask
from semid_jax.quantize.codebook import Codebook, decode
from semid_jax.train.semantic_ids import Tokenizer

BATCH = 256  # users whose codes are decoded at once
SAMPLE = 1024  # users, at most, each of whom is told from all the others


def update_metrics(
    tokenizer: Tokenizer,
    after: ReadSide,
    before: ReadSide,
    fired: np.ndarray,
    rank: Callable[[ReadSide], np.ndarray],
) -> dict[str, float]:
    """Churn, consistency and accuracy of the users who were updated.

    Args:
      tokenizer: of the run.
      after: read sides after the update.
      before: the same users' before it.
      fired: bool[U], who was updated.
      rank: read sides to the ranks of their targets, int32[u].

    Returns:
      "updated_users" (share), "churn", and where there are any and codes `can_change`: of "stale"
      and "full", against the incremental codes, "code_overlap_…" (share of equal codes) and
      "cosine_…" (mean cosine of what the codes stand for); of all three "updated_ndcg@10_…" and
      "coherence_…", see `coherence`; "update_gain…", the paired difference of incremental and
      stale, and "full_gain…", of incremental and full, with intervals.
    """
    rows = np.flatnonzero(fired)
    found = {"updated_users": float(fired.mean()), "churn": churn(after, before, fired)}
    if not len(rows) or not can_change(tokenizer):
        return found
    incremental = after.take(rows)
    full = encoded_anew(tokenizer, incremental)
    sides = {"stale": before.take(rows), "incremental": incremental, "full": full}
    gains: dict[str, np.ndarray] = {}
    for name, side in sides.items():
        gains[name] = ranking_metrics(rank(side))["ndcg@10"]
        found |= named_of(summary({"updated_ndcg@10": gains[name]}), name)
        found[f"coherence_{name}"] = coherence(tokenizer, side)
        if name != "incremental":
            found[f"code_overlap_{name}"] = 1.0 - _moved(incremental, side)
            found[f"cosine_{name}"] = _cosine(tokenizer, incremental, side)
    found |= named("update_gain", paired_difference(gains["incremental"], gains["stale"]))
    return found | named("full_gain", paired_difference(gains["incremental"], gains["full"]))


def can_change(tokenizer: Tokenizer) -> bool:
    """Whether an update may move a code: there is another archetype's, and codes are comparable."""
    return len(tokenizer.coarse) > 1 and tokenizer.book.kind == "hierarchical"


BUDGETS = (0.05, 0.1, 0.2, 0.4)  # shares of a read side that an update may move
MARGINS = (0.0, 0.1, 0.3)  # shares of an item's codes that have to be others for it to move


def update_sweep(
    tokenizer: Tokenizer,
    read: Callable[..., ReadSide],
    before: ReadSide,
    fired: np.ndarray,
    rank: Callable[[ReadSide], np.ndarray],
) -> dict[str, float]:
    """Churn and accuracy of the updated users by how much an update may move, and what it must.

    Args:
      tokenizer: of the run.
      read: `budget=` or `margin=` to the read sides after updates with it, all else as the
        tokenizer has it; users in the order of `before`.
      before: read sides before the update.
      fired: bool[U], who was updated.
      rank: read sides to the ranks of their targets, int32[u].

    Returns:
      For each of BUDGETS "tradeoff.<percent>", for each of MARGINS "margins.<percent>", and for
      every item encoded anew "tradeoff.full", each with ".churn" and ".difference" with its
      interval, of NDCG@10 and that before the update, paired over users. Empty where nobody was
      updated.
    """
    rows = np.flatnonzero(fired)
    if not len(rows):
        return {}
    stale = before.take(rows)
    base = ranking_metrics(rank(stale))["ndcg@10"]
    changes = {f"tradeoff.{round(100 * share)}": {"budget": share} for share in BUDGETS}
    changes |= {f"margins.{round(100 * share)}": {"margin": share} for share in MARGINS}
    sides = {name: read(**change).take(rows) for name, change in changes.items()}
    sides["tradeoff.full"] = encoded_anew(tokenizer, stale)
    found: dict[str, float] = {}
    for name, side in sides.items():
        own = ranking_metrics(rank(side))["ndcg@10"]
        found |= named(name, {"churn": _moved(side, stale), **paired_difference(own, base)})
    return found


def encoded_anew(tokenizer: Tokenizer, side: ReadSide) -> ReadSide:
    """Read sides with every item in the codes of today's archetype."""
    column = side.archetype[:, None]
    codes = tokenizer.coarse[column, side.history], tokenizer.fine[column, side.history]
    return dataclasses.replace(side, coarse=codes[0], fine=codes[1])


def named_of(values: dict[str, float], suffix: str) -> dict[str, float]:
    """Puts a suffix behind each metric's name, before that of its interval."""
    found = {}
    for name, value in values.items():
        end = next((e for e in ("_low", "_high") if name.endswith(e)), "")
        found[f"{name.removesuffix(end)}_{suffix}{end}"] = value
    return found


def churn(after: ReadSide, before: ReadSide, fired: np.ndarray) -> float:
    """Share of the read side's codes that the updates moved, over the updated users."""
    if not fired.any():
        return 0.0
    rows = np.flatnonzero(fired)
    return _moved(after.take(rows), before.take(rows))


def _moved(left: ReadSide, right: ReadSide) -> float:
    """Share of codes that differ, padding left out."""
    mask = left.history > 0
    coarse = (left.coarse != right.coarse) & mask
    fine = (left.fine != right.fine) & mask[..., None]
    return float((coarse.sum() + fine.sum()) / (mask.sum() * (1 + left.fine.shape[-1])))


def _cosine(tokenizer: Tokenizer, left: ReadSide, right: ReadSide) -> float:
    """Mean cosine of what the codes of both stand for, over items."""
    a, b = (_directions(tokenizer, side) for side in (left, right))
    return float(np.sum(a * b, axis=-1).mean())


def _directions(tokenizer: Tokenizer, side: ReadSide) -> np.ndarray:
    """float32[n, D], unit vectors of what the codes of all items of all users stand for."""
    mask = side.history > 0
    flat, step = (side.coarse[mask], side.fine[mask]), BATCH * side.history.shape[1]
    parts = [_stands_for(tokenizer.book, *(f[at : at + step] for f in flat)) for at in
             range(0, len(flat[0]), step)]  # fmt: skip
    return np.concatenate([np.asarray(part) for part in parts])


@jax.jit
def _stands_for(book: Codebook, coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """Unit vectors of what codes stand for: int32[n], uint8[n, L] to float32[n, D]."""
    return unit(decode(book, coarse, fine))


def coherence(tokenizer: Tokenizer, side: ReadSide) -> float:
    """How well read sides are told apart by what their users ask for (design 3.5, consistency).

    Args:
      tokenizer: of the run.
      side: read sides, of which at most SAMPLE from all over are looked at.

    Returns:
      The mean share of other users whose own long-term interest is less like a user's read side
      than the user's is: 1 at best, .5 by chance. Both less their means, or every read side
      would be most like what the crowd asks for.
    """
    rows = np.unique(np.linspace(0, len(side) - 1, min(len(side), SAMPLE), dtype=int))
    side, views = side.take(rows), tokenizer.views
    if len(side) < 2:
        return 0.5
    mask = side.history > 0
    read = np.add.reduceat(_directions(tokenizer, side), np.cumsum(mask.sum(1)) - mask.sum(1))
    wanted = ask(jnp.asarray(side.belief), views.archetypes.alpha[side.archetype], views.table)
    a, b = (
        unit(jnp.asarray(v) - jnp.mean(v, axis=0)) for v in (read / mask.sum(1)[:, None], wanted)
    )
    likeness = np.asarray(a @ b.T)
    own = np.diag(likeness)[:, None]
    less = (likeness < own).sum() + 0.5 * ((likeness == own).sum() - len(own))
    return float(less / (len(own) * (len(own) - 1)))
