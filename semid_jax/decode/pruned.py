"""`pruned`: the exact k best, most entries ruled out by an upper bound that costs less than S1.

Every entry's bound is made (see `sketch`) and each block keeps its largest. Blocks are then scored
exactly, best bound first, until no block is left whose bound reaches the k-th best score. Where
that would be too many of them, or there are few users, everything is scored instead.
"""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp

from semid_jax.decode.exact import check_query, retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.leaves import items_of, score_blocks
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, Query
from semid_jax.decode.sketch import NEVER, ROUNDING, Blocks, Bounds
from semid_jax.decode.topk import top_k_ties
from semid_jax.turns import in_turns

PAYS = 0.15  # of the blocks: if more of them survive the bound, everything is scored
# Users of a batch: for fewer, reading the short vectors takes longer than look-ups in tables that
# lie in the cache (a million items, two cores: 10 ms against 7 for one user, 496 against 825 for
# 256).
LEAST = 16
FEW = 16  # blocks that are scored first, to know about how good the k-th best is


@functools.partial(jax.jit, static_argnames=("k", "chunk", "blocks", "users"))
def retrieve_pruned(
    index: Index,
    sketch: Bounds,
    query: Query,
    k: int,
    chunk: int = 8192,
    blocks: int = 64,
    users: int = 8,
) -> Retrieved:
    """The k best items under S1, the very list of `exact`.

    Args:
      index: the catalogue.
      sketch: of the index.
      query: B users.
      k: items returned.
      chunk: entries whose bounds are made at once, rounded to whole blocks.
      blocks: blocks scored at once, but for the first time; those with the best bounds come first.
      users: of the batch that go on together until none of them has a block left.

    Returns:
      items, scores and the number of entries whose S1 was computed; all of them where it did not
      pay.
    """
    check_query(index, query)
    B = len(query.vector)
    if B < LEAST:
        return retrieve_exact(index, query, k)
    masked = index.n_archetypes > 1
    bound = block_bounds(sketch, query, chunk, masked)
    blocks = min(blocks, bound.shape[1])
    search = functools.partial(_descend, sketch.blocks, k=k, blocks=blocks, masked=masked)
    nothing = (
        jnp.zeros((B, k), jnp.int32),
        jnp.full((B, k), -jnp.inf, jnp.float32),
        jnp.zeros(B, jnp.int32),
    )
    few = min(FEW + -(-2 * k // sketch.blocks.size), blocks)
    first, left = _score_best(sketch.blocks, query, nothing, bound, k, few, masked)
    share = jnp.mean((left >= first[1][:, -1:]) & (left > NEVER / 2))

    def prune() -> Retrieved:
        of_users = dataclasses.replace(query, dense=None), first, left
        return Retrieved(*in_turns(lambda part: search(*part), of_users, min(users, B)))

    return jax.lax.cond(share > PAYS, lambda: retrieve_exact(index, query, k), prune)


def block_bounds(sketch: Bounds, query: Query, chunk: int, masked: bool = True) -> jax.Array:
    """The largest bound of each block.

    Args:
      sketch: of the index.
      query: B users.
      chunk: entries at once.
      masked: leave out entries of other archetypes; False where there is only one.

    Returns:
      float32[B, b]: no entry of a user's archetype in the block has a larger S1.
    """
    r, n, S = sketch.vector.shape[0] - 1, sketch.vector.shape[1], sketch.blocks.size
    vector = query.vector
    chex.assert_shape(vector, (None, sketch.mean.shape[0]))
    turned = jnp.dot(vector, sketch.transform, precision=PRECISION)
    left = jnp.linalg.norm(turned[:, r:], axis=1, keepdims=True)
    short = jnp.concatenate([turned[:, :r], left], axis=1)
    middle = jnp.dot(vector, sketch.mean, precision=PRECISION)[:, None]
    # Terms of the sums that stand for each other, here and in S1.
    terms = jnp.linalg.norm(turned, axis=1, keepdims=True) * sketch.longest + jnp.abs(middle)
    terms += jnp.max(jnp.abs(query.coarse), axis=1, keepdims=True)
    terms += jnp.sum(jnp.max(jnp.abs(query.fine), axis=2), axis=1, keepdims=True)
    base = middle + ROUNDING * terms
    bit = query.archetype.astype(jnp.uint32)[:, None]
    size = min(max(chunk // S, 1) * S, n)

    def largest(begin: jax.Array) -> jax.Array:
        def part(a: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(a, begin, size, axis=a.ndim - 1)

        made = jnp.dot(short, part(sketch.vector), precision=PRECISION)
        if masked:
            own = (jnp.right_shift(part(sketch.blocks.mask), bit) & 1) == 1
            made = jnp.where(own, made, NEVER)
        return jnp.max(made.reshape(len(made), -1, S), axis=2)

    starts = jnp.minimum(jnp.arange(0, n, size), n - size)
    made = jax.lax.map(largest, starts)  # [chunks, B, blocks of a chunk]
    whole = jnp.moveaxis(made, 0, 1).reshape(len(short), -1)
    tail = n % size  # the last chunk was moved back to be full
    if tail:
        kept = whole.shape[1] - size // S
        rest = whole[:, kept + (size - tail) // S :]
        whole = jnp.concatenate([whole[:, :kept], rest], axis=1)
    return base + whole


# Items and scores of the k best so far, and how many entries were scored.
Best = tuple[jax.Array, jax.Array, jax.Array]


def _score_best(
    entries: Blocks,
    query: Query,
    best: Best,
    left: jax.Array,
    k: int,
    blocks: int,
    masked: bool,
) -> tuple[Best, jax.Array]:
    """Scores the blocks with the best bounds among those left: the k best now, and what is left."""
    items, scores, scored = best
    B = len(left)
    bound, which = jax.lax.optimization_barrier(jax.lax.top_k(left, blocks))
    made, own = score_blocks(entries, query, which, masked)
    wanted = ((bound >= scores[:, -1:]) & (bound > NEVER / 2))[:, :, None] & own
    made = jnp.where(wanted, made, -jnp.inf).reshape(B, -1)
    here = top_k_ties(made, items_of(entries, which), k)
    items, scores = top_k_ties(
        jnp.concatenate([scores, here[1]], axis=1),
        jnp.concatenate([items, here[0]], axis=1),
        k,
    )
    left = left.at[jnp.arange(B)[:, None], which].set(NEVER)
    return (items, scores, scored + wanted.sum(axis=(1, 2), dtype=jnp.int32)), left


def _descend(
    entries: Blocks,
    query: Query,
    best: Best,
    left: jax.Array,
    k: int,
    blocks: int,
    masked: bool,
) -> Best:
    """Scores blocks, best bound first, until none can reach the k-th score."""

    def unfinished(carry: tuple[Best, jax.Array]) -> jax.Array:
        (_, scores, _), left = carry
        largest = jnp.max(left, axis=1)
        return jnp.any((largest >= scores[:, -1]) & (largest > NEVER / 2))

    def step(carry: tuple[Best, jax.Array]) -> tuple[Best, jax.Array]:
        return _score_best(entries, query, *carry, k=k, blocks=blocks, masked=masked)

    found: Best = jax.lax.while_loop(unfinished, step, (best, left))[0]
    return found
