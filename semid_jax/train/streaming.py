"""Serving a stream: users' states and read sides, brought up to date by each interaction.

A user's read side, the codes of the last T items, follows from little: the items, the archetype of
today, and the archetype before the last drift with the number of items since. So that is what is
kept, and a stream, cut where one likes, gives the states of one go. Design part 3.7.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, struct, traverse_util

from semid_jax import artifacts
from semid_jax.models.fusion import Archetypes, assign_archetype, follow_archetype
from semid_jax.models.stream import Perceiver, UserState, absorb_all, first_state
from semid_jax.quantize.update import Codes, move_items
from semid_jax.train.readings import make_perceiver
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import InputError


@struct.dataclass
class Streamer:
    """What it takes to keep users up to date.

    Attributes:
      perceiver: of the crowd.
      archetypes: that users are assigned to.
      coarse: int32[A, N + 1], the catalogue's codes.
      fine: uint8[A, N + 1, L].
      threshold: float32[], of drift.
      hold: float32[], of an archetype.
      margin: float32[], hysteresis of an update.
      budget: float32[], of an update.
      window: W.
    """

    perceiver: Perceiver
    archetypes: Archetypes
    coarse: jax.Array
    fine: jax.Array
    threshold: jax.Array
    hold: jax.Array
    margin: jax.Array
    budget: jax.Array
    window: int = struct.field(pytree_node=False)


@struct.dataclass
class StreamState:
    """All that is kept of B users.

    Attributes:
      user: sums and beliefs, users on the last axis of every array.
      history: int32[B, T], the last items, the newest last, 0 before the first.
      archetype: int32[B], today's.
      old: int32[B], the one before the last drift was noticed.
      since: int32[B], interactions since then, T where all T items came later.
    """

    user: UserState
    history: jax.Array
    archetype: jax.Array
    old: jax.Array
    since: jax.Array


@struct.dataclass
class Events:
    """What an update did, and why.

    Attributes:
      fired: bool[B], a drift was noticed.
      drift: float32[B, 2], log Bayes factors of new weights and of new tastes; -inf where too few
        items came before.
      old: int32[B], archetype before.
      archetype: int32[B], archetype now.
      coarse: bool[B, T], coarse codes of `history` that the drift has moved.
      fine: bool[B, T, L], fine ones.
    """

    fired: jax.Array
    drift: jax.Array
    old: jax.Array
    archetype: jax.Array
    coarse: jax.Array
    fine: jax.Array


def make_streamer(tokenizer: Tokenizer) -> Streamer:
    """What it takes to keep users of a tokenizer up to date."""
    config = tokenizer.module.config
    return Streamer(
        make_perceiver(tokenizer.frozen),
        tokenizer.views.archetypes,
        jnp.asarray(tokenizer.coarse),
        jnp.asarray(tokenizer.fine),
        jnp.asarray(tokenizer.threshold, jnp.float32),
        jnp.float32(config.hold),
        jnp.float32(config.margin),
        jnp.float32(config.budget),
        config.window,
    )


def begin(streamer: Streamer, users: int, width: int) -> StreamState:
    """States of users of whom nothing is known.

    Args:
      streamer: of the run.
      users: B.
      width: T.
    """
    user, said = first_state(streamer.perceiver, users, streamer.window)
    archetype = assign_archetype(said.alpha.T, said.interest.T, streamer.archetypes)
    history = jnp.zeros((users, width), jnp.int32)
    return StreamState(user, history, archetype, archetype, jnp.full(users, width, jnp.int32))


def drifted_codes(
    streamer: Streamer,
    history: jax.Array,
    earlier: jax.Array,
    old: jax.Array,
    archetype: jax.Array,
) -> tuple[Codes, Codes]:
    """Read sides of users who have drifted: items from before in codes that move, the rest in new.

    Args:
      streamer: of the run.
      history: int32[B, T], 0 is padding.
      earlier: bool[B, T], items from before the drift was noticed.
      old: int32[B], archetype before it.
      archetype: int32[B], archetype now.

    Returns:
      (coarse int32[B, T], fine uint8[B, T, L]) before the update, and the same after it.
    """
    column, own = jnp.where(earlier, old[:, None], archetype[:, None]), archetype[:, None]
    before = streamer.coarse[column, history], streamer.fine[column, history]
    now = streamer.coarse[own, history], streamer.fine[own, history]
    movable = earlier & (history > 0)
    return before, move_items(before, now, movable, streamer.margin, streamer.budget)


@jax.jit
def update(streamer: Streamer, state: StreamState, items: jax.Array) -> tuple[StreamState, Events]:
    """Takes in the next interaction of every user.

    Args:
      streamer: of the run.
      state: of B users.
      items: int32[B], 0 leaves the user's state as it is.

    Returns:
      The new states, and what happened.
    """
    width = state.history.shape[1]
    user, said = absorb_all(streamer.perceiver, state.user, items, streamer.threshold)
    new = items > 0
    known = said.alpha.T, said.interest.T, streamer.archetypes
    archetype = follow_archetype(*known, state.archetype, said.fired, streamer.hold)
    archetype = jnp.where(new, archetype, state.archetype)
    shifted = jnp.concatenate([state.history[:, 1:], items[:, None]], axis=1)
    history = jnp.where(new[:, None], shifted, state.history)
    old = jnp.where(said.fired, state.archetype, state.old)
    since = jnp.where(said.fired, 0, jnp.minimum(state.since + new, width))

    def moved() -> tuple[jax.Array, jax.Array]:
        everything = jnp.ones_like(history, bool)
        before, after = drifted_codes(streamer, history, everything, old, archetype)
        mine = said.fired[:, None] & (history > 0)
        return (before[0] != after[0]) & mine, (before[1] != after[1]) & mine[..., None]

    def nothing() -> tuple[jax.Array, jax.Array]:
        shape = history.shape
        return jnp.zeros(shape, bool), jnp.zeros((*shape, streamer.fine.shape[-1]), bool)

    coarse, fine = jax.lax.cond(jnp.any(said.fired), moved, nothing)
    state = StreamState(user, history, archetype, old, since)
    return state, Events(said.fired, said.drift.T, old, archetype, coarse, fine)


@jax.jit
def read_side(streamer: Streamer, state: StreamState) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the generator reads of each user.

    Returns:
      history int32[B, T], right-padded as the generator wants it, its coarse codes int32[B, T] and
      its fine codes uint8[B, T, L].
    """
    width = state.history.shape[1]
    blank = width - jnp.sum(state.history > 0, axis=1)
    place = (jnp.arange(width) + blank[:, None]) % width
    history = jnp.take_along_axis(state.history, place, axis=1)
    earlier = place < (width - state.since)[:, None]
    _, codes = drifted_codes(streamer, history, earlier, state.old, state.archetype)
    return history, *codes


def take(state: StreamState, rows: np.ndarray) -> StreamState:
    """The states of some users, in that order: rows int64[b]."""
    rest = [a[rows] for a in (state.history, state.archetype, state.old, state.since)]
    return StreamState(jax.tree.map(lambda a: a[..., rows], state.user), *rest)


def put(state: StreamState, rows: np.ndarray, part: StreamState) -> StreamState:
    """The states of all users, those of some replaced; every row at most once."""
    user = jax.tree.map(lambda a, b: a.at[..., rows].set(b), state.user, part.user)
    names = "history", "archetype", "old", "since"
    rest = [getattr(state, name).at[rows].set(getattr(part, name)) for name in names]
    return StreamState(user, *rest)


def save(directory: Path, state: StreamState, tokenizer: str) -> None:
    """Writes states as an artefact.

    Args:
      directory: where it will lie.
      state: of the users.
      tokenizer: content hash of the tokenizer's artefact.

    Raises:
      InputError: the disk is full, or the place holds something else.
    """
    tree = traverse_util.flatten_dict(serialization.to_state_dict(state), sep="/")
    arrays = {name: np.asarray(value) for name, value in tree.items()}
    artifacts.write(directory, "stream", arrays, {"tokenizer": tokenizer}, {})


def load(directory: Path, blank: StreamState, tokenizer: str) -> StreamState:
    """The inverse of `save`.

    Args:
      directory: an artefact of states.
      blank: any state of the same tokenizer, for its structure.
      tokenizer: content hash of the tokenizer's artefact.

    Raises:
      InputError: torn, or of another tokenizer.
    """
    arrays, manifest = artifacts.read(directory, "stream")
    if manifest["inputs"]["tokenizer"] != tokenizer:
        raise InputError(
            f"{directory}: states of another tokenizer; replay the interactions with this one"
        )
    tree = traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")
    state: StreamState = serialization.from_state_dict(blank, tree)
    return state
