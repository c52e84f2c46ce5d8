"""Inverted lists cut into blocks of a fixed number of slots: what a probe reads in one piece.

A block's codes lie digit by digit, so that one digit of all its slots is read in a row and looked
up many at a time; entry by entry the same list takes more than twice as long.
Slots without an entry have a bias of -inf and need no mask.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

SLOTS = 64


@struct.dataclass
class Blocks:
    """The lists of all archetypes in blocks; the last block is empty.

    Attributes:
      entry: int32[b + 1, S], numbers of the index's entries; 0 in slots without one.
      fine: uint8[b + 1, L, S], their Fine-IDs.
      bias: float32[b + 1, S], b_i; -inf in slots without an entry.
      first: int32[A, C + 1]; cell c of archetype a has blocks first[a, c] .. first[a, c + 1] - 1.
      widths: the most blocks that the p + 1 longest lists of an archetype take, for p < C.
    """

    entry: jax.Array
    fine: jax.Array
    bias: jax.Array
    first: jax.Array
    widths: tuple[int, ...] = struct.field(pytree_node=False)


def build_blocks(
    lists: np.ndarray, offsets: np.ndarray, fine: np.ndarray, bias: np.ndarray
) -> Blocks:
    """Cuts lists into blocks.

    Args:
      lists: int32[A, N], entries of an archetype by cell.
      offsets: int32[A, C + 1], where the cells' lists begin.
      fine: uint8[n, L], of the entries.
      bias: float32[n].
    """
    sizes = np.diff(offsets, axis=1)
    counts = -(-sizes // SLOTS)
    ends = np.cumsum(counts).reshape(counts.shape)
    first = np.concatenate([ends[:, :1] - counts[:, :1], ends], axis=1)
    entry = np.full((first[-1, -1] + 1, SLOTS), -1, np.int32)
    for a, row in enumerate(lists):
        inside = np.arange(len(row)) - np.repeat(offsets[a, :-1], sizes[a])
        block = np.repeat(first[a, :-1], sizes[a]) + inside // SLOTS
        entry[block, inside % SLOTS] = row
    there, entry = entry >= 0, np.maximum(entry, 0)
    return Blocks(
        entry=jnp.asarray(entry),
        fine=jnp.asarray(np.ascontiguousarray(fine[entry].transpose(0, 2, 1))),
        bias=jnp.asarray(np.where(there, bias[entry], -np.inf).astype(np.float32)),
        first=jnp.asarray(first.astype(np.int32)),
        widths=tuple(int(w) for w in np.cumsum(-np.sort(-counts, axis=1), axis=1).max(axis=0)),
    )


def with_bias(blocks: Blocks, bias: jax.Array) -> Blocks:
    """The same blocks under other biases float32[n] of the entries."""
    there = jnp.isfinite(blocks.bias)
    return dataclasses.replace(blocks, bias=jnp.where(there, bias[blocks.entry], -jnp.inf))


def score_slots(fine: jax.Array, coarse: jax.Array, codes: jax.Array, bias: jax.Array) -> jax.Array:
    """S1 of the slots of blocks, each user's own.

    The terms are added in the order of `score.score_entries`, so that both give the same float.

    Args:
      fine: float32[B, L, K], the query's look-up tables.
      coarse: float32[B, W, S], the coarse terms.
      codes: uint8[B, W, L, S].
      bias: float32[B, W, S].

    Returns:
      float32[B, W, S].
    """
    if jax.default_backend() == "cpu":
        # Without the barrier the blocks are read byte by byte, inside the look-ups; a GPU takes a
        # third less time so.
        codes = jax.lax.optimization_barrier(codes)
    look_up = jax.vmap(lambda table, code: jnp.take(table, code.astype(jnp.int32), mode="clip"))
    scores = coarse
    for j in range(fine.shape[1]):
        scores = scores + look_up(fine[:, j], codes[:, :, j])
    return scores + bias
