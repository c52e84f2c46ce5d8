"""`pruned`: the exact k best, most entries ruled out by an upper bound that costs less than S1.

Every entry's bound is made (see `sketch`) and each block keeps its largest. Blocks are then scored
exactly, best bound first, until no block is left whose bound reaches the k-th best score. Where
that would be most of them, everything is scored instead.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from semid_jax.decode.exact import check_query, retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, Query, score_gathered
from semid_jax.decode.sketch import NEVER, ROUNDING, Sketch
from semid_jax.decode.topk import top_k_ties

PAYS = 0.15  # of the entries: if more of them survive the bound, everything is scored


@functools.partial(jax.jit, static_argnames=("k", "probes", "chunk", "blocks"))
def retrieve_pruned(
    index: Index,
    sketch: Sketch,
    query: Query,
    k: int,
    probes: int = 1,
    chunk: int = 8192,
    blocks: int = 64,
) -> Retrieved:
    """The k best items under S1, the very list of `exact`.

    Args:
      index: the catalogue.
      sketch: of the index.
      query: B users.
      k: items returned.
      probes: cells that are searched first, for a k-th score to begin with.
      chunk: entries whose bounds are made at once, rounded to whole blocks.
      blocks: blocks scored at once.

    Returns:
      items, scores and the number of entries whose S1 was computed, cells of the beginning
      included; all of them where it did not pay.
    """
    check_query(index, query)
    first = retrieve_inverted(index, query, probes, k)
    bound = block_bounds(sketch, query, chunk)
    reached = bound >= first.scores[:, -1:]
    share = jnp.mean(reached)

    def prune() -> Retrieved:
        return _descend(index, sketch, query, first, bound, k, min(blocks, bound.shape[1]))

    return jax.lax.cond(share > PAYS, lambda: retrieve_exact(index, query, k), prune)


def block_bounds(sketch: Sketch, query: Query, chunk: int) -> jax.Array:
    """The largest bound of each block.

    Args:
      sketch: of the index.
      query: B users.
      chunk: entries at once.

    Returns:
      float32[B, n' / block]: no entry of a user's archetype in the block has a larger S1.
    """
    r, n = sketch.vector.shape
    vector = query.vector
    chex.assert_shape(vector, (None, sketch.mean.shape[0]))
    turned = jnp.dot(vector, sketch.transform, precision=PRECISION)
    short, left = turned[:, :r], jnp.linalg.norm(turned[:, r:], axis=1, keepdims=True)
    middle = jnp.dot(vector, sketch.mean, precision=PRECISION)[:, None]
    # Terms of the sums that stand for each other, here and in S1.
    terms = jnp.linalg.norm(turned, axis=1, keepdims=True) * sketch.longest + jnp.abs(middle)
    terms += jnp.max(jnp.abs(query.coarse), axis=1, keepdims=True)
    terms += jnp.sum(jnp.max(jnp.abs(query.fine), axis=2), axis=1, keepdims=True)
    base = middle + ROUNDING * terms
    bit = query.archetype.astype(jnp.uint32)[:, None]
    size = min(max(chunk // sketch.block, 1) * sketch.block, n)

    def largest(begin: jax.Array) -> jax.Array:
        def part(a: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(a, begin, size, axis=a.ndim - 1)

        own = (jnp.right_shift(part(sketch.mask), bit) & 1) == 1
        made = jnp.dot(short, part(sketch.vector), precision=PRECISION)
        made = jnp.where(own, made + left * part(sketch.rest), NEVER)
        return jnp.max(made.reshape(len(made), -1, sketch.block), axis=2)

    starts = jnp.minimum(jnp.arange(0, n, size), n - size)
    made = jax.lax.map(largest, starts)  # [chunks, B, blocks of a chunk]
    whole = jnp.moveaxis(made, 0, 1).reshape(len(short), -1)
    tail = n % size  # the last chunk was moved back to be full
    if tail:
        kept = whole.shape[1] - size // sketch.block
        rest = whole[:, kept + (size - tail) // sketch.block :]
        whole = jnp.concatenate([whole[:, :kept], rest], axis=1)
    return base + whole


def _descend(
    index: Index,
    sketch: Sketch,
    query: Query,
    first: Retrieved,
    bound: jax.Array,
    k: int,
    blocks: int,
) -> Retrieved:
    """Scores blocks, best bound first, until none can reach the k-th score."""
    B = len(bound)
    row = jnp.arange(B)[:, None]
    slot = jnp.arange(sketch.block)

    def unfinished(carry: tuple) -> jax.Array:
        _, scores, left, _ = carry
        largest = jnp.max(left, axis=1)
        return jnp.any((largest >= scores[:, -1]) & (largest > NEVER / 2))

    def step(carry: tuple) -> tuple:
        items, scores, left, scored = carry
        best, which = jax.lax.optimization_barrier(jax.lax.top_k(left, blocks))
        place = (which[..., None] * sketch.block + slot).reshape(B, -1)
        entry = sketch.entry[place]
        own = jnp.right_shift(sketch.mask[place], query.archetype.astype(jnp.uint32)[:, None])
        wanted = jnp.repeat(best >= scores[:, -1:], sketch.block, axis=1) & ((own & 1) == 1)
        codes = index.entry_coarse[entry], index.entry_fine[entry], index.entry_bias[entry]
        found = index.entry_item[entry]
        # What the beginning has found already comes up once more in its block.
        known = (found[:, :, None] == items[:, None, :]).any(axis=2)
        made = jnp.where(wanted & ~known, score_gathered(query, *codes), -jnp.inf)
        here = top_k_ties(made, found, k)
        items, scores = top_k_ties(
            jnp.concatenate([scores, here[1]], axis=1),
            jnp.concatenate([items, here[0]], axis=1),
            k,
        )
        left = left.at[row, which].set(NEVER)
        return items, scores, left, scored + wanted.sum(axis=1, dtype=jnp.int32)

    start = first.items, first.scores, bound, first.scored
    items, scores, _, scored = jax.lax.while_loop(unfinished, step, start)
    return Retrieved(items, scores, scored)
