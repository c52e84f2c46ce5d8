"""A user's state, brought up to date by one interaction at a time, and the drifts it notices.

The same step reads whole histories (a scan) and serves streams (one call per batch of users). It
costs the same at any length of the history. It is written for one user; many lie on the last axis
of every array (`absorb_all`). Design part 3.7.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.memory import Memory
from semid_jax.models.perceiver import (
    Latents,
    Preference,
    Prior,
    drift_evidence,
    evidence,
    first_prior,
    item_gains,
    plain_evidence,
    posterior,
    updated_prior,
)


@struct.dataclass
class Perceiver:
    """What it takes to read a history.

    Attributes:
      latents: of the crowd.
      readings: float32[N + 1, M, K], what the tastes read in each item.
      mask: bool[N + 1, M].
    """

    latents: Latents
    readings: jax.Array
    mask: jax.Array


@struct.dataclass
class UserState:
    """All that is kept of a user.

    Attributes:
      prior: what is believed from before the last drift.
      memory: sums since the last drift, the window's items included.
      recent: int32[W], the last items since then, oldest first, 0 = none.
      seen: int32[], interactions in `memory`.
    """

    prior: Prior
    memory: Memory
    recent: jax.Array
    seen: jax.Array


@struct.dataclass
class Reading:
    """What a state says.

    Attributes:
      alpha: float32[M], weights by all that is known.
      alpha_short: float32[M], by the last W items alone.
      interest: float32[D], by all that is known.
      belief: float32[M, K], by all that is known, see `Preference`.
      drift: float32[2], log Bayes factors of new weights and of new tastes within the last W
        items; -inf where too few items lie before them.
      fired: bool[], a drift was noticed with the last item.
    """

    alpha: jax.Array
    alpha_short: jax.Array
    interest: jax.Array
    belief: jax.Array
    drift: jax.Array
    fired: jax.Array


def first_state(perceiver: Perceiver, users: int, window: int) -> tuple[UserState, Reading]:
    """The states of users of whom nothing is known, on the last axis.

    Args:
      perceiver: of the crowd.
      users: B.
      window: W.
    """
    crowd = first_prior(perceiver.latents)
    shape = perceiver.latents.log_tastes.shape
    memory = Memory(jnp.zeros(shape), jnp.zeros(shape[:1]))
    state = UserState(crowd, memory, jnp.zeros(window, jnp.int32), jnp.int32(0))
    nothing = _preference(perceiver, crowd, memory)
    drift, fired = jnp.full(2, -jnp.inf), jnp.zeros((), bool)
    reading = _reading(nothing, nothing, drift, fired)
    return jax.tree.map(
        lambda a: jnp.broadcast_to(a[..., None], (*a.shape, users)), (state, reading)
    )


def _reading(known: Preference, short: Preference, drift: jax.Array, fired: jax.Array) -> Reading:
    return Reading(known.alpha, short.alpha, known.interest, known.belief, drift, fired)


def _preference(perceiver: Perceiver, prior: Prior, memory: Memory) -> Preference:
    latents = perceiver.latents
    return posterior(latents, prior, evidence(latents, prior, memory)[0])


def preferences(perceiver: Perceiver, state: UserState) -> Preference:
    """What is known of users, on the last axis of the state and the first of the answer."""
    of_one = functools.partial(_preference, perceiver)
    return jax.vmap(of_one, in_axes=-1, out_axes=0)(state.prior, state.memory)


def drift_score(drift: jax.Array) -> jax.Array:
    """Log Bayes factor of either kind of drift, both as likely: float32[2, ...] to float32[...]."""
    return jnp.logaddexp(drift[0], drift[1])


def absorb(
    perceiver: Perceiver,
    state: UserState,
    item: jax.Array,
    threshold: jax.Array,
    judges: bool = True,
) -> tuple[UserState, Reading]:
    """Takes in a user's next item.

    Args:
      perceiver: of the crowd.
      state: of the user.
      item: int32[], 0 leaves the state as it is.
      threshold: float32[], of `drift_score`; inf never fires.
      judges: False saves the work where no user has seen 2 W items.

    Returns:
      The new state, and what it says.
    """
    new = item > 0
    ring = jnp.where(new, jnp.append(state.recent[1:], item), state.recent)
    added = Memory(perceiver.readings[item], perceiver.mask[item].astype(jnp.float32))
    memory: Memory = jax.tree.map(jnp.add, state.memory, added)  # row 0 of both tables is zero
    state = UserState(state.prior, memory, ring, state.seen + new)
    drift, fired = jnp.full(2, -jnp.inf), jnp.zeros((), bool)
    if judges:
        anew, drift = _judge(perceiver, state)
        fired = new & (drift_score(drift) > threshold)
        state = jax.tree.map(lambda a, b: jnp.where(fired, a, b), anew, state)
    recent = _total(_window(perceiver, state.recent))
    known = _preference(perceiver, state.prior, state.memory)
    short = _preference(perceiver, first_prior(perceiver.latents), recent)
    return state, _reading(known, short, drift, fired)


def absorb_all(
    perceiver: Perceiver,
    state: UserState,
    items: jax.Array,
    threshold: jax.Array,
    judges: bool = True,
) -> tuple[UserState, Reading]:
    """`absorb` of many users, on the last axis of all arrays; items int32[B]."""
    one = functools.partial(absorb, judges=judges)
    return jax.vmap(one, in_axes=(None, -1, -1, None), out_axes=-1)(
        perceiver, state, items, threshold
    )


def _judge(perceiver: Perceiver, state: UserState) -> tuple[UserState, jax.Array]:
    """Whether the window tells of a drift, and the state that starts anew if it does.

    What was known before stays as a prior: the weights if it was the interest that moved, the
    tastes if it was the weights, both by their probability.

    Returns:
      The state after a drift; float32[2], its log Bayes factors, -inf if it cannot be judged.
    """
    latents, window = perceiver.latents, len(state.recent)
    items = _window(perceiver, state.recent)
    recent = _total(items)
    before: Memory = jax.tree.map(jnp.subtract, state.memory, recent)
    drift, old, young = drift_evidence(latents, state.prior, before, recent)
    drift = jnp.where(state.seen >= 2 * window, drift, -jnp.inf)
    # The window has items from before the drift too: it begins where the gain of the rest is most.
    crowd = first_prior(latents)
    gains = item_gains(latents, (state.prior, old), (crowd, young), items)
    begin = jnp.argmax(jnp.cumsum(gains[::-1])[::-1])
    since = jnp.arange(window) >= begin
    old += plain_evidence(latents, _total(_masked(items, ~since)))
    certain = jnp.where(state.seen >= 2 * window, drift[1] - drift[0], 0.0)
    prior = updated_prior(state.prior, old, crowd, jax.nn.sigmoid(certain))
    kept = _total(_masked(items, since))
    return UserState(prior, kept, jnp.where(since, state.recent, 0), window - begin), drift


def _window(perceiver: Perceiver, recent: jax.Array) -> Memory:
    """The items of a window, int32[W], each a memory: axes [W, ...]."""
    return Memory(perceiver.readings[recent], perceiver.mask[recent].astype(jnp.float32))


def _total(items: Memory) -> Memory:
    """The memory of a window: axis W summed."""
    return Memory(jnp.sum(items.sums, axis=0), jnp.sum(items.count, axis=0))


def _masked(items: Memory, mask: jax.Array) -> Memory:
    """Some items of a window: mask bool[W]."""
    return Memory(items.sums * mask[:, None, None], items.count * mask[:, None])
