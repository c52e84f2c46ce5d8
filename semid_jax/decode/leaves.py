"""`leaves`: cells, then leaves of the best cells, then the items of the best leaves.

The head of coarse codes says which cells, the mean and the variances of a leaf which leaves: the
best entry of a leaf lies some standard deviations above its mean. Both are guesses, so items may
be missed; how many is measured, as for `inverted`. A cell of a thousand items holds good and bad
ones, a leaf of a few dozen hardly does, so a few per cent of the items are enough.
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
from semid_jax.decode.sketch import NEVER, Sketch
from semid_jax.decode.topk import ItemsAt, top_k_ties
from semid_jax.decode.turns import codes_in_turns

ABOVE = 2.0  # standard deviations of a leaf above its mean: where its best entry is expected


@functools.partial(jax.jit, static_argnames=("probes", "leaves", "k"))
def retrieve_leaves(
    index: Index, sketch: Sketch, query: Query, probes: int, leaves: int, k: int
) -> Retrieved:
    """The k best items under S1 inside the best leaves of the P best cells.

    Args:
      index: the catalogue.
      sketch: of the index; its blocks are the leaves.
      query: B users.
      probes: P, cells whose leaves are looked at; all of them where there are fewer.
      leaves: R, leaves scored per user.
      k: items returned.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    leaves = min(leaves, len(sketch.item))
    guess = leaf_scores(sketch, query, min(probes, index.n_cells))
    best, which = jax.lax.optimization_barrier(jax.lax.top_k(guess, leaves))

    def search(of_users: tuple[Query, jax.Array, jax.Array]) -> Retrieved:
        query, best, which = of_users
        scores, own = score_leaves(sketch, query, which)
        own &= (best > NEVER / 2)[:, :, None]
        scores = jnp.where(own, scores, -jnp.inf).reshape(len(which), -1)
        items, scores = top_k_ties(scores, items_of(sketch, which), k)
        return Retrieved(items, scores, own.sum(axis=(1, 2), dtype=jnp.int32))

    of_users = dataclasses.replace(query, dense=None), best, which
    each = leaves * sketch.block * sketch.fine.shape[1]
    found: Retrieved = codes_in_turns(search, of_users, each)
    return found


def leaf_scores(sketch: Sketch, query: Query, probes: int) -> jax.Array:
    """What the best entry of every leaf may score, but for a constant of the user.

    Args:
      sketch: of the index.
      query: B users.
      probes: P; cells as good as the P-th one are looked at too.

    Returns:
      float32[B, b], `NEVER` for leaves of other cells.
    """
    chex.assert_shape(query.vector, (None, sketch.mean.shape[0]))
    turned = query.vector @ sketch.transform[:, : sketch.rank]
    guess = turned @ sketch.centre.T + ABOVE * jnp.sqrt(turned**2 @ sketch.spread.T)
    if probes == query.coarse.shape[1]:
        return guess
    least = jax.lax.top_k(query.coarse, probes)[0][:, -1:]
    return jnp.where((query.coarse >= least)[:, sketch.coarse], guess, NEVER)


def score_leaves(sketch: Sketch, query: Query, which: jax.Array) -> tuple[jax.Array, jax.Array]:
    """S1 of all slots of each user's own leaves.

    Args:
      sketch: of the index.
      query: B users.
      which: int32[B, R], leaves.

    Returns:
      float32[B, R, S]; and bool[B, R, S], whether the slot has an entry of the user's archetype.
    """
    mask = sketch.mask.reshape(-1, sketch.block)[which]
    own = jnp.right_shift(mask, query.archetype.astype(jnp.uint32)[:, None, None]) & 1
    coarse = jnp.take_along_axis(query.coarse, sketch.coarse[which], axis=1)[:, :, None]
    coarse = jnp.broadcast_to(coarse, mask.shape)
    return score_slots(query.fine, coarse, sketch.fine[which], sketch.bias[which]), own == 1


def items_of(sketch: Sketch, which: jax.Array) -> ItemsAt:
    """Positions in the slots of each user's leaves int32[B, R], end to end, to items."""

    def at(position: jax.Array) -> jax.Array:
        leaf = jnp.take_along_axis(which, position // sketch.block, axis=1)
        return sketch.item[leaf, position % sketch.block]

    return at
