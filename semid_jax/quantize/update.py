"""Moves a user's read-side codes towards new weights, a little at a time (design part 3.7)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.quantize.codebook import Codebook, cell_distances, codeword_distances, encode_fine


@jax.jit
def update_codes(
    book: Codebook,
    z: jax.Array,
    coarse: jax.Array,
    fine: jax.Array,
    mask: jax.Array,
    margin: float | jax.Array,
    budget: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Incremental update of the read sides of n users.

    A code moves only if its distance under the new weights beats the old code's by `margin` of the
    user's mean distance (hysteresis); fine digits go before coarse codes, the largest savings
    first, and at most `budget` of a user's T (1 + L) codes move: no user's update depends on who
    else is in the batch. Where digits are residuals, a coarse code
    takes its digits along, and they count.

    Args:
      book: hierarchical codebook.
      z: float32[n, T, D], the items as the user sees them now.
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
    flat_z, flat_coarse = z.reshape(n * T, -1), coarse.reshape(-1)
    to_digit = codeword_distances(book, flat_z, flat_coarse).reshape(n, T, L, -1)
    to_cell = cell_distances(book, flat_z).reshape(n, T, -1)

    def saving(distance: jax.Array, code: jax.Array, valid: jax.Array) -> jax.Array:
        old = jnp.take_along_axis(distance, code[..., None].astype(jnp.int32), -1)[..., 0]
        valid = jnp.broadcast_to(valid, old.shape)
        mean = jnp.mean(old, axis=range(1, old.ndim), where=valid, keepdims=True)
        gain = (old - jnp.min(distance, axis=-1)) / jnp.maximum(mean, 1e-9)
        return jnp.where((gain > margin) & valid, gain, 0.0).reshape(n, -1)

    digit_gain = saving(to_digit, fine, mask[..., None])
    cell_gain = saving(to_cell, coarse, mask)
    gain = jnp.concatenate([digit_gain, cell_gain], axis=1)
    is_cell = jnp.broadcast_to(jnp.arange(gain.shape[1]) >= T * L, gain.shape)
    cell_cost = 1 if book.absolute else 1 + L
    cost = jnp.concatenate([jnp.ones((n, T * L)), jnp.full((n, T), float(cell_cost))], axis=1)
    cost = jnp.where(gain > 0, cost, 0.0)
    order = jnp.lexsort((-gain, is_cell), axis=1)
    spent = jnp.cumsum(jnp.take_along_axis(cost, order, axis=1), axis=1)
    allowed = budget * jnp.sum(mask, axis=1, keepdims=True) * (1 + L)
    granted = jnp.zeros_like(gain, bool)
    granted = granted.at[jnp.arange(n)[:, None], order].set(spent <= allowed) & (gain > 0)
    digit_moves = granted[:, : T * L].reshape(n, T, L)
    cell_moves = granted[:, T * L :]
    new_fine = jnp.where(digit_moves, jnp.argmin(to_digit, axis=-1), fine).astype(fine.dtype)
    new_coarse = jnp.where(cell_moves, jnp.argmin(to_cell, axis=-1), coarse).astype(coarse.dtype)
    if not book.absolute:
        again = encode_fine(book, flat_z, new_coarse.reshape(-1)).reshape(n, T, L)
        new_fine = jnp.where(cell_moves[..., None], again, new_fine)
    return new_coarse, jnp.concatenate([new_fine, shared], axis=-1)
