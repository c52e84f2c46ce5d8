"""`leaves`: every leaf of every cell is judged, and the items of the best are scored.

The best entry of a leaf lies some standard deviations above its mean, and the mean of scores is the
score of the mean vector, so all leaves are judged by one product of matrices, 16 times smaller than
that with all items and in a twentieth of the coordinates. It is a guess, so items may be missed;
how many is measured, as for `inverted`. A cell of a thousand items holds good and bad ones, a leaf
of a few hardly does, so one per cent of the items is enough.
"""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp

from semid_jax.decode.blocks import score_slots
from semid_jax.decode.exact import check_query
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query
from semid_jax.decode.shortlist import made_once, shortlist
from semid_jax.decode.sketch import Blocks, Leaves
from semid_jax.decode.topk import ItemsAt, top_k_ties
from semid_jax.turns import cached_turns


@functools.partial(jax.jit, static_argnames=("leaves", "k"))
def retrieve_leaves(index: Index, sketch: Leaves, query: Query, leaves: int, k: int) -> Retrieved:
    """The k best items under S1 inside the best leaves.

    Args:
      index: the catalogue.
      sketch: of the index.
      query: B users.
      leaves: R, leaves scored per user.
      k: items returned.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    blocks = sketch.blocks
    leaves = min(leaves, len(blocks.item))

    def search(query: Query) -> Retrieved:
        best, which = shortlist(_judge(index, sketch, query), leaves)
        scores, own = score_blocks(blocks, query, which, index.n_archetypes > 1)
        own &= best[:, :, None] > -jnp.inf
        scores = jnp.where(own, scores, -jnp.inf).reshape(len(which), -1)
        items, scores = top_k_ties(made_once(scores), items_of(blocks, which), k)
        return Retrieved(items, scores, own.sum(axis=(1, 2), dtype=jnp.int32))

    judged = len(blocks.item) * sketch.leaf.dtype.itemsize
    each = judged + leaves * blocks.size * blocks.fine.shape[1]
    found: Retrieved = cached_turns(search, dataclasses.replace(query, dense=None), each)
    return found


@jax.jit
def leaf_places(index: Index, sketch: Leaves, query: Query, items: jax.Array) -> jax.Array:
    """How many leaves a user must read until an item is surely among those scored.

    Args:
      index: the catalogue.
      sketch: of the index.
      query: B users.
      items: int32[B, n], 0 = none.

    Returns:
      int32[B, n], from 1 to the number of leaves; 0 where there is no item.
    """
    check_query(index, query)
    blocks = sketch.blocks
    leaf = jnp.arange(len(blocks.item), dtype=jnp.int32)[:, None]
    mask = blocks.mask.reshape(blocks.item.shape)

    def leaves_of(archetype: jax.Array) -> jax.Array:
        own = (jnp.right_shift(mask, archetype) & 1) == 1
        blank = jnp.zeros(index.n_items + 1, jnp.int32)
        return blank.at[jnp.where(own, blocks.item, 0)].set(leaf)

    leaf_of = jax.vmap(leaves_of)(jnp.arange(index.n_archetypes, dtype=jnp.uint32))
    guess = _judge(index, sketch, query)
    own = jnp.take_along_axis(guess, leaf_of[query.archetype[:, None], items], axis=1)
    place = jnp.sum(guess[:, None, :] >= own[:, :, None], axis=2, dtype=jnp.int32)
    return jnp.where(items > 0, place, 0)


def _judge(index: Index, sketch: Leaves, query: Query) -> jax.Array:
    """`leaf_scores`, -inf where a leaf holds nothing of the user's archetype."""
    guess = leaf_scores(sketch, query)
    if index.n_archetypes == 1:
        return guess
    return jnp.where(_holds_any(sketch.blocks, query), guess, -jnp.inf)


def leaf_scores(sketch: Leaves, query: Query) -> jax.Array:
    """What the best entry of every leaf may well score, but for a constant of the user.

    Args:
      sketch: of the index.
      query: B users.

    Returns:
      float32[B, b].
    """
    chex.assert_shape(query.vector, (None, sketch.basis.shape[0]))
    turned = query.vector @ sketch.basis
    return jnp.pad(turned, ((0, 0), (0, 1)), constant_values=1.0) @ sketch.leaf


def _holds_any(blocks: Blocks, query: Query) -> jax.Array:
    """bool[B, b], blocks with an entry of the user's archetype."""
    return (blocks.any_mask & _bit(query)[:, None]) > 0


def _bit(query: Query) -> jax.Array:
    """uint32[B], the bit of each user's archetype."""
    return jnp.left_shift(jnp.uint32(1), query.archetype.astype(jnp.uint32))


def score_blocks(
    blocks: Blocks, query: Query, which: jax.Array, masked: bool
) -> tuple[jax.Array, jax.Array]:
    """S1 of all slots of each user's own blocks.

    Args:
      blocks: of the index.
      query: B users.
      which: int32[B, R], blocks.
      masked: whether some entries are other archetypes' alone; False where there is only one.

    Returns:
      float32[B, R, S]; and bool[B, R, S], whether the slot has an entry of the user's archetype.
    """
    bias = blocks.bias[which]
    own = bias > -jnp.inf
    if masked:
        mask = blocks.mask.reshape(-1, blocks.size)[which]
        own = (mask & _bit(query)[:, None, None]) > 0
    coarse = jnp.take_along_axis(query.coarse, blocks.coarse[which], axis=1)[:, :, None]
    coarse = jnp.broadcast_to(coarse, bias.shape)
    return score_slots(query.fine, coarse, blocks.fine[which], bias), own


def items_of(blocks: Blocks, which: jax.Array) -> ItemsAt:
    """Positions in the slots of each user's blocks int32[B, R], end to end, to items."""

    def at(position: jax.Array) -> jax.Array:
        block = jnp.take_along_axis(which, position // blocks.size, axis=1)
        return blocks.item[block, position % blocks.size]

    return at
