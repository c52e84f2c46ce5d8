"""Moves a user's read-side codes towards new weights, a little at a time (design part 3.7)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.quantize.codebook import Codebook, encode, encode_fine, split


def nearest_codes(book: Codebook, z: jax.Array, coarse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where items would be by distance alone: what `update_codes` moves codes towards.

    Args:
      book: hierarchical codebook.
      z: float32[n, T, D], the items as the user sees them now.
      coarse: int32[n, T], the cells so far, to which residual digits refer.

    Returns:
      The nearest cell, int32[n, T], and codewords, uint8[n, T, L].
    """
    flat = z.reshape(-1, z.shape[-1])
    cell, digits = encode(book, flat)
    if not book.absolute:
        digits = encode_fine(book, flat, coarse.reshape(-1))
    return cell.reshape(coarse.shape), digits.reshape(*coarse.shape, -1)


@jax.jit
def update_codes(
    book: Codebook,
    z: jax.Array,
    target: tuple[jax.Array, jax.Array],
    coarse: jax.Array,
    fine: jax.Array,
    mask: jax.Array,
    margin: float | jax.Array,
    budget: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Incremental update of the read sides of n users.

    A code moves to its target only if that saves more than `margin` of the user's mean distance
    (hysteresis); fine digits go before coarse codes, the largest savings first, and at most
    `budget` of a user's T (1 + L) codes move: no user's update depends on who else is in the
    batch. Where digits are residuals, a coarse code takes its digits along, and they count.

    Args:
      book: hierarchical codebook.
      z: float32[n, T, D], the items as the user sees them now.
      target: of `nearest_codes`, or from tables of the same.
      coarse: int32[n, T], the codes so far.
      fine: uint8[n, T, L or more]; digits behind the codebook's L, which are shared, stay.
      mask: bool[n, T], False on padding.
      margin: share of the user's mean squared distance that a move has to save.
      budget: share of the user's codes that may move.

    Returns:
      New coarse int32[n, T] and fine, as given.
    """
    fine, shared = fine[..., : book.digits], fine[..., book.digits :]
    n, T, L = fine.shape
    cell, digits = target
    digit_gain = _saving(
        _to_codewords(book, z, coarse, fine),
        _to_codewords(book, z, coarse, digits),
        mask[..., None],
        margin,
    )
    cell_gain = _saving(_to_cells(book, z, coarse), _to_cells(book, z, cell), mask, margin)
    gain = jnp.concatenate([digit_gain, cell_gain], axis=1)
    is_cell = jnp.arange(gain.shape[1]) >= T * L
    cost = jnp.where(is_cell, 1.0 if book.absolute else 1.0 + L, 1.0)
    cost = jnp.where(gain > 0, cost, 0.0)
    # One key to go by: digits in (0, 1], cells behind them, the larger the gain the sooner.
    key = is_cell + 1.0 / (1.0 + gain)
    allowed = budget * jnp.sum(mask, axis=1, keepdims=True) * (1 + L)
    granted = affordable(key, cost, allowed) & (gain > 0)
    digit_moves = granted[:, : T * L].reshape(n, T, L)
    cell_moves = granted[:, T * L :]
    new_fine = jnp.where(digit_moves, digits, fine).astype(fine.dtype)
    new_coarse = jnp.where(cell_moves, cell, coarse).astype(coarse.dtype)
    if not book.absolute:
        again = encode_fine(book, z.reshape(n * T, -1), new_coarse.reshape(-1))
        new_fine = jnp.where(cell_moves[..., None], again.reshape(n, T, L), new_fine)
    return new_coarse, jnp.concatenate([new_fine, shared], axis=-1)


def affordable(key: jax.Array, cost: jax.Array, allowed: jax.Array) -> jax.Array:
    """What can be had in the order of keys, ties by position, until the next costs too much.

    The first key that cannot all be had is found bit by bit, in a pass over the row for each: a
    sort of 256 rows of 850 keys takes XLA ten times as long on a CPU.

    Args:
      key: float32[n, m], not negative.
      cost: float32[n, m], not negative.
      allowed: float32[n, 1], what may be spent.

    Returns:
      bool[n, m].
    """
    bits = jax.lax.bitcast_convert_type(key, jnp.int32)  # in the order of the keys

    def spent(chosen: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(chosen, cost, 0.0), axis=1, keepdims=True)

    def with_bit(step: int, known: jax.Array) -> jax.Array:
        more = known | (1 << (30 - step))
        return jnp.where(spent(bits < more) <= allowed, more, known)

    edge = jax.lax.fori_loop(0, 31, with_bit, jnp.zeros((len(key), 1), jnp.int32))
    below, tied = bits < edge, bits == edge
    until = spent(below) + jnp.cumsum(jnp.where(tied, cost, 0.0), axis=1)
    return below | (tied & (until <= allowed))


def _to_cells(book: Codebook, z: jax.Array, cell: jax.Array) -> jax.Array:
    """float32[n, T], squared distances to given cells."""
    return jnp.sum(jnp.square(z - book.coarse[cell]), axis=-1)


def _to_codewords(book: Codebook, z: jax.Array, coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """float32[n, T, L], squared distances of the parts of z to given codewords."""
    left = z if book.absolute else z - book.coarse[coarse]
    parts = split((left @ book.rotation).reshape(-1, book.width), book.digits)
    words = book.fine[jnp.arange(book.digits), fine.astype(jnp.int32)]
    return jnp.sum(jnp.square(parts.reshape(words.shape) - words), axis=-1)


def _saving(
    before: jax.Array, after: jax.Array, valid: jax.Array, margin: float | jax.Array
) -> jax.Array:
    """float32[n, codes], what moves save in mean distances; 0 where it is not worth the move."""
    valid = jnp.broadcast_to(valid, before.shape)
    mean = jnp.mean(before, axis=range(1, before.ndim), where=valid, keepdims=True)
    gain = (before - after) / jnp.maximum(mean, 1e-9)
    return jnp.where((gain > margin) & valid, gain, 0.0).reshape(len(before), -1)
