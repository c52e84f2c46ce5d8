"""What the generator reads of each user, before and after an update of the read side."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from semid_jax.data.sequences import prefixes, split_end
from semid_jax.eval.model import ReadSide, make_read_side
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.streaming import Streamer, drifted_codes, make_streamer
from semid_jax.types import Interactions

BATCH = 64  # users whose codes are moved at once

_drifted_codes = jax.jit(drifted_codes)


def read_side(
    tokenizer: Tokenizer,
    interactions: Interactions,
    split: str,
    width: int,
    users: np.ndarray | None = None,
    streamer: Streamer | None = None,
) -> tuple[ReadSide, ReadSide, np.ndarray]:
    """Users' codes before a split's target, and which of them an update has moved.

    A user whose drift was noticed has read the items before it in the codes of the archetype of
    that time; these are updated incrementally towards those of today's.

    Args:
      tokenizer: of the run.
      interactions: histories.
      split: "validation" or "test".
      width: T.
      users: int64[U], default all.
      streamer: how codes are moved; as the tokenizer's settings have it if not given.

    Returns:
      The read sides after and before the update, in the same order of users, and bool[U], who was
      updated.
    """
    users = np.arange(interactions.n_users) if users is None else users
    history, _, targets = prefixes(interactions, split, width, users)
    readings = tokenizer.readings
    flat = interactions.offsets[users] + split_end(interactions, split)[users]
    codes = tokenizer.coarse, tokenizer.fine
    known = readings.archetype[flat], readings.alpha[flat], readings.belief[flat]
    side = make_read_side(users, history, targets, *known, *codes)
    flat = flat[np.searchsorted(users, side.users)]  # users ascend
    drifted = last_drift(interactions, readings.fired)[flat]
    fired = drifted >= 0
    # The archetype before the drift was noticed, for the items until then.
    old = readings.archetype[np.where(fired, drifted - 1, flat)]
    shown = (side.history > 0).sum(axis=1)
    place = (flat - shown)[:, None] + np.arange(side.history.shape[1])
    rows = np.flatnonzero(fired)
    streamer = streamer or make_streamer(tokenizer)
    coarse, fine = side.coarse.copy(), side.fine.copy()
    moved_coarse, moved_fine = coarse.copy(), fine.copy()
    for at in range(0, len(rows), BATCH):
        some = np.resize(rows[at : at + BATCH], BATCH)
        earlier = place[some] < drifted[some, None]
        history, archetype = side.history[some], side.archetype[some]
        before, after = _drifted_codes(streamer, history, earlier, old[some], archetype)
        coarse[some], fine[some] = before
        moved_coarse[some], moved_fine[some] = after
    return (
        dataclasses.replace(side, coarse=moved_coarse, fine=moved_fine),
        dataclasses.replace(side, coarse=coarse, fine=fine),
        fired,
    )


def last_drift(interactions: Interactions, fired: np.ndarray) -> np.ndarray:
    """int64[nnz], where in `items` the user's last drift up to here was noticed, -1 if none."""
    place = np.where(fired, np.arange(len(fired)), -1)
    latest = np.maximum.accumulate(place)
    start = np.repeat(interactions.offsets[:-1], interactions.lengths)
    return np.where(latest >= start, latest, -1)
