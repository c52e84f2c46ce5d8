"""The k best with ties broken by a fixed hash of the item, so that every search agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.shortlist import counting_pays, shortlist

# `lax.top_k` keeps the best in a heap. Of so many, or of so many scores, a shortlist is made first.
MANY, SCORES = 64, 1 << 17
SURPLUS = 8  # so many behind rank k are looked at for ties, and k / SURPLUS more

Array = TypeVar("Array", jax.Array, np.ndarray)


def tie_hash(item: Array) -> Array:
    """The rank of an item among items of equal score; smaller goes first.

    The finaliser of MurmurHash3 behind an offset: one to one on 32 bits, so two items never tie
    again, and it favours neither early nor late item numbers.

    Args:
      item: int32[...], numpy or jax.

    Returns:
      uint32[...].
    """
    h = item.astype(np.uint32) + np.uint32(0x9E3779B9)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def is_ahead(
    scores: jax.Array, hashes: jax.Array, target: jax.Array, hashed: jax.Array
) -> jax.Array:
    """bool[B, n], which entries come before the target, float32[B, 1] with hash uint32[B, 1]."""
    tie = (scores == target) & (hashes < hashed)
    return ((scores > target) | tie) & (scores > -jnp.inf)


# Positions int32[B, m] to items int32[B, m].
ItemsAt = Callable[[jax.Array], jax.Array]


def top_k_ties(
    scores: jax.Array, items: jax.Array | ItemsAt, k: int
) -> tuple[jax.Array, jax.Array]:
    """The k best items per row by (score, tie hash), exact also where a tie straddles rank k.

    The usual case costs one `largest` of a few more than k. Where the last of them tie with rank k,
    more are looked at, and where these do, the rows' whole order is computed by a sort.

    Args:
      scores: float32[B, n], -inf for what must not be returned.
      items: int32[B, n] or int32[n]; or a function of positions int32[B, m], where it is cheaper to
        look up those of the best.
      k: items returned; may exceed n.

    Returns:
      (int32[B, k], float32[B, k]); 0 and -inf where a row has fewer than k finite scores.
    """
    B, n = scores.shape
    at = items if callable(items) else _in_array(items, B, n)
    if k < n:
        few = k + SURPLUS + k // SURPLUS
        items, scores = _select(scores, at, k, (few, 4 * few))
    else:
        items = at(_all_positions(B, n))
        items = jnp.pad(items, ((0, 0), (0, k - n)))
        scores = jnp.pad(scores, ((0, 0), (0, k - n)), constant_values=-jnp.inf)
        items, scores = _order(scores, items)
    return jnp.where(scores > -jnp.inf, items, 0), scores


def _in_array(items: jax.Array, B: int, n: int) -> ItemsAt:
    chex.assert_shape(items, [(n,), (B, n)][items.ndim - 1])
    if items.ndim == 1:
        return lambda position: items[position]
    return lambda position: jnp.take_along_axis(items, position, axis=1)


def _all_positions(B: int, n: int) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(n), (B, n))


def _order(scores: jax.Array, items: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sorts each row by falling score, then by rising tie hash."""
    # 0 - x, not -x: the sort tells -0.0 from 0.0, which are one score.
    keys = (0.0 - scores, tie_hash(items), items)
    negative, _, items = jax.lax.sort(keys, dimension=1, num_keys=2)
    return items, 0.0 - negative


def _order_ties(items: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_order` of rows that fall already: many are sorted again only if two scores of a row tie."""
    if not counting_pays(len(scores)):
        return _order(scores, items)
    ties = (scores[:, 1:] == scores[:, :-1]) & (scores[:, 1:] > -jnp.inf)
    return jax.lax.cond(jnp.any(ties), lambda: _order(scores, items), lambda: (items, scores))


def largest(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of each row, but that ties may be in any order.

    Args:
      scores: float32[B, n], n at least k.
      k: how many.

    Returns:
      The k largest, falling, and their positions, int32[B, k]; those of -inf may be anyone's.
    """
    (B, n), position = scores.shape, None
    if counting_pays(B) and (k >= MANY or B * n >= SCORES) and n >= 4 * k:
        scores, position = shortlist(scores, k)
    # Without the barrier XLA on CPU merges slices of what is found into its top-k and, no longer
    # seeing one, sorts the whole row: 30 times slower.
    best, at = jax.lax.optimization_barrier(jax.lax.top_k(scores, k))
    return best, at if position is None else jnp.take_along_axis(position, at, axis=1)


def _select(
    scores: jax.Array, items: ItemsAt, k: int, widths: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """The k best per row, k < n, in order: (items [B, k], scores [B, k]).

    Args:
      scores: float32[B, n].
      items: of positions.
      k: how many.
      widths: so many of the best are looked at, more than k; the next so many where these end in a
        tie with rank k, whose first by hash may lie behind them, and in the end all.
    """
    B, n = scores.shape
    if not widths or widths[0] >= n:
        every, best = _order(scores, items(_all_positions(B, n)))
        return every[:, :k], best[:, :k]
    best, position = largest(scores, widths[0])
    goes_on = (best[:, k - 1] == best[:, -1]) & (best[:, -1] > -jnp.inf)

    def ordered() -> tuple[jax.Array, jax.Array]:
        found, score = _order_ties(items(position), best)
        return found[:, :k], score[:, :k]

    def further() -> tuple[jax.Array, jax.Array]:
        return _select(scores, items, k, widths[1:])

    return jax.lax.cond(jnp.any(goes_on), further, ordered)
