"""`inverted`: only the items of the P cells with the best coarse logits are scored."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.decode.blocks import SLOTS, Blocks, score_slots
from semid_jax.decode.exact import check_query
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query
from semid_jax.decode.topk import top_k_ties
from semid_jax.turns import cached_turns


@struct.dataclass
class Probed:
    """The blocks of the probed cells, laid end to end, in a width W that holds any P cells.

    Attributes:
      block: int32[B, W], numbers of blocks, that of the empty one behind the last.
      coarse: float32[B, W], the coarse term of the block's cell.
      entries: int32[B], in all probed lists.
    """

    block: jax.Array
    coarse: jax.Array
    entries: jax.Array


@functools.partial(jax.jit, static_argnames=("probes", "k"))
def retrieve_inverted(index: Index, query: Query, probes: int, k: int) -> Retrieved:
    """The k best items under S1 inside the P best cells.

    Args:
      index: the catalogue.
      query: B users.
      probes: P, cells probed per user; all of them where there are fewer.
      k: items returned.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    probed = probe(index, query, probes)
    each = probed.block.shape[1] * SLOTS * index.entry_fine.shape[1]

    def search(of_users: tuple[jax.Array, Probed]) -> tuple[jax.Array, jax.Array]:
        fine, probed = of_users
        scores = score_blocks(fine, probed, index.blocks.fine[probed.block], index.blocks)
        return best_of_blocks(index, probed, scores, k)

    items, scores = cached_turns(search, (query.fine, probed), each)
    return Retrieved(items, scores, probed.entries)


def probe(index: Index, query: Query, probes: int) -> Probed:
    """Finds the blocks of the P cells with the best coarse logits.

    Args:
      index: the catalogue.
      query: B users.
      probes: P.
    """
    blocks, probes = index.blocks, min(probes, index.n_cells)
    coarse, cells = jax.lax.top_k(query.coarse, probes)
    archetype = query.archetype[:, None]
    start = blocks.first[archetype, cells]
    end = jnp.cumsum(blocks.first[archetype, cells + 1] - start, axis=1)
    width = max(blocks.widths[probes - 1], 1)
    # Place w lies in the first list that ends behind it: as many end at it or before.
    ends_at = jax.vmap(lambda row: jnp.zeros(width, jnp.int32).at[row].add(1, mode="drop"))(end)
    number = jnp.cumsum(ends_at, axis=1)
    inside = jnp.minimum(number, probes - 1)
    shift = start - jnp.pad(end[:, :-1], ((0, 0), (1, 0)))
    block = jnp.arange(width, dtype=jnp.int32) + jnp.take_along_axis(shift, inside, axis=1)
    block = jnp.where(number < probes, block, len(blocks.entry) - 1)
    entries = index.offsets[archetype, cells + 1] - index.offsets[archetype, cells]
    return Probed(block, jnp.take_along_axis(coarse, inside, axis=1), entries.sum(axis=1))


@jax.jit
def cell_places(index: Index, query: Query, items: jax.Array) -> jax.Array:
    """How many cells a user must probe until an item is among those scored.

    Args:
      index: the catalogue.
      query: B users.
      items: int32[B, n], 0 = none.

    Returns:
      int32[B, n], from 1 to C; 0 where there is no item.
    """
    check_query(index, query)
    _, best_first = jax.lax.top_k(query.coarse, index.n_cells)
    place = 1 + jnp.argsort(best_first, axis=1).astype(jnp.int32)
    entry = index.entry_of[query.archetype[:, None], items]
    cell = index.entry_coarse[jnp.maximum(entry, 0)]
    return jnp.where(entry >= 0, jnp.take_along_axis(place, cell, axis=1), 0)


def score_blocks(fine: jax.Array, probed: Probed, codes: jax.Array, blocks: Blocks) -> jax.Array:
    """S1 of every slot, float32[B, W S], -inf where there is no entry.

    Args:
      fine: float32[B, L, K], the query's look-up tables.
      probed: of `probe`.
      codes: uint8[B, W, L, S], of the probed blocks.
      blocks: of the index.
    """
    coarse = jnp.broadcast_to(probed.coarse[:, :, None], (*probed.block.shape, SLOTS))
    scores = score_slots(fine, coarse, codes, blocks.bias[probed.block])
    return scores.reshape(len(fine), -1)


def best_of_blocks(
    index: Index, probed: Probed, scores: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """The k best slots: items int32[B, k] and scores float32[B, k]."""

    def items_at(position: jax.Array) -> jax.Array:
        block = jnp.take_along_axis(probed.block, position // SLOTS, axis=1)
        return index.entry_item[index.blocks.entry[block, position % SLOTS]]

    return top_k_ties(scores, items_at, k)
