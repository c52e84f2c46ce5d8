"""Moves a user's read-side codes towards new weights, a few items at a time (design part 3.7)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Codes = tuple[jax.Array, jax.Array]  # coarse int32[n, T], fine uint8[n, T, L]


def move_items(
    before: Codes,
    now: Codes,
    movable: jax.Array,
    margin: float | jax.Array,
    budget: float | jax.Array,
) -> Codes:
    """Incremental update of the read sides of n users.

    An item moves with all its codes or with none: what is half old and half new stands for no
    archetype's view of it. It moves only if more than `margin` of its codes are others now
    (hysteresis); those that have changed most go first, of equals the earlier, and at most
    `budget` of a user's T (1 + L) codes move: no user's update depends on who else is in the
    batch.

    Args:
      before: the codes so far.
      now: the same items' codes for the new weights.
      movable: bool[n, T], False on padding and on what is to stay.
      margin: share of an item's codes that have to be others.
      budget: share of the user's movable codes that may move.

    Returns:
      The new codes.
    """
    (coarse, fine), (new_coarse, new_fine) = before, now
    codes = 1 + fine.shape[-1]
    changed = (coarse != new_coarse) + jnp.sum(fine != new_fine, axis=-1, dtype=jnp.int32)
    changed = jnp.where(movable & (changed > margin * codes), changed, 0)
    allowed = budget * codes * jnp.sum(movable, axis=1, keepdims=True)
    moves = affordable(codes - changed, changed, allowed, codes.bit_length()) & (changed > 0)
    return (
        jnp.where(moves, new_coarse, coarse),
        jnp.where(moves[..., None], new_fine, fine),
    )


def affordable(key: jax.Array, cost: jax.Array, allowed: jax.Array, bits: int) -> jax.Array:
    """What can be had in the order of keys, ties by position, until the next costs too much.

    The first key that cannot all be had is found bit by bit, in a pass over the row for each: a
    sort takes XLA ten times as long on a CPU.

    Args:
      key: int32[n, m], of 0 to 2^bits - 1.
      cost: int32[n, m], not negative.
      allowed: float32[n, 1], what may be spent.
      bits: of a key.

    Returns:
      bool[n, m].
    """

    def spent(chosen: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(chosen, cost, 0), axis=1, keepdims=True)

    edge = jnp.zeros((len(key), 1), jnp.int32)
    for bit in reversed(range(bits)):
        more = edge | (1 << bit)
        edge = jnp.where(spent(key < more) <= allowed, more, edge)
    tied = key == edge
    until = spent(key < edge) + jnp.cumsum(jnp.where(tied, cost, 0), axis=1)
    return (key < edge) | (tied & (until <= allowed))
