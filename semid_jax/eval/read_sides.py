"""What the generator reads of each user, before and after an update of the read side."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from semid_jax.data.sequences import prefixes, split_end
from semid_jax.eval.model import ReadSide, make_read_side
from semid_jax.models.fusion import fuse
from semid_jax.quantize.update import update_codes
from semid_jax.train.readings import positions_of
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import Interactions


def read_side(
    tokenizer: Tokenizer,
    interactions: Interactions,
    split: str,
    width: int,
    users: np.ndarray | None = None,
) -> tuple[ReadSide, ReadSide, np.ndarray]:
    """Users' codes before a split's target, and which of them an update has moved.

    Users whose drift stands above its threshold take the archetype of their short-term weights;
    their read side is updated incrementally from the codes of the long-term one.

    Args:
      tokenizer: of the run.
      interactions: histories.
      split: "validation" or "test".
      width: T.
      users: int64[U], default all.

    Returns:
      The read sides after and before the update, in the same order of users, and bool[U], who was
      updated.
    """
    users = np.arange(interactions.n_users) if users is None else users
    history, _, targets = prefixes(interactions, split, width, users)
    flat = interactions.offsets[users] + split_end(interactions, split)[users]
    config = tokenizer.module.config
    fired_flat = tokenizer.fired(config.window, positions_of(interactions))[flat]
    readings = tokenizer.readings
    alpha = np.where(fired_flat[:, None], readings.alpha_short[flat], readings.alpha[flat])
    codes = tokenizer.coarse, tokenizer.fine
    side = make_read_side(users, history, targets, tokenizer.archetype[flat], alpha, *codes)
    place = np.searchsorted(users, side.users)  # users ascend
    fired = fired_flat[place]
    long = readings.archetype[flat][place]
    column = long[:, None]
    before = dataclasses.replace(
        side,
        coarse=tokenizer.coarse[column, side.history],
        fine=tokenizer.fine[column, side.history],
    )
    if not fired.any() or tokenizer.book.kind != "hierarchical":
        return side, before, fired
    coarse, fine = before.coarse.copy(), before.fine.copy()
    rows = np.flatnonzero(fired)
    for at in range(0, len(rows), 64):
        some = np.resize(rows[at : at + 64], 64)
        items = side.history[some]
        alpha = tokenizer.archetypes.alpha[side.archetype[some]][:, None]
        gate = tokenizer.archetypes.gate[side.archetype[some]][:, None]
        z = fuse(tokenizer.frozen.e[items], tokenizer.frozen.mask[items], alpha, gate)
        new_coarse, new_fine = update_codes(
            tokenizer.book,
            z,
            jnp.asarray(coarse[some]),
            jnp.asarray(fine[some]),
            jnp.asarray(items > 0),
            config.margin,
            config.budget,
        )
        coarse[some], fine[some] = np.asarray(new_coarse), np.asarray(new_fine)
    return dataclasses.replace(side, coarse=coarse, fine=fine), before, fired


def churn(after: ReadSide, before: ReadSide, fired: np.ndarray) -> float:
    """Share of the read side's codes that the updates moved, over the updated users."""
    if not fired.any():
        return 0.0
    mask = after.history[fired] > 0
    moved = (after.coarse != before.coarse)[fired] & mask
    digits = (after.fine != before.fine)[fired] & mask[..., None]
    return float((moved.sum() + digits.sum()) / (mask.sum() * (1 + after.fine.shape[-1])))
