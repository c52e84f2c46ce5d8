"""`exact`: every entry is scored by look-ups, in chunks with a running top k.

PQTopK: Petrov, Macdonald and Tonellotto, "Efficient Inference of Sub-Item Id-based Sequential
Recommendation Models with Millions of Items", RecSys 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, score_entries, score_gathered
from semid_jax.decode.topk import tie_hash, top_k_ties

# scores of `size` entries from `start` on: float32[B, size]
ScoreChunk = Callable[[jax.Array, int], jax.Array]


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def retrieve_exact(index: Index, query: Query, k: int, chunk: int = 8192) -> Retrieved:
    """The k best items under S1, by scoring all of them.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries scored at once; memory is about 8 B chunk bytes.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    return scan_entries(index, query, k, chunk, chunk_scores(index, query))


@functools.partial(jax.jit, static_argnames=("chunk",))
def exact_rank(
    index: Index,
    query: Query,
    targets: jax.Array,
    exclude: jax.Array | None = None,
    chunk: int = 8192,
) -> tuple[jax.Array, jax.Array]:
    """The rank of one item per user in the full order by (S1, tie hash).

    Args:
      index: the catalogue.
      query: B users.
      targets: int32[B], item numbers, 0 = none.
      exclude: int32[B, H], items taken out of the list, 0 = padding, repeats allowed; or None.
      chunk: entries scored at once.

    Returns:
      (int32[B], int32[B]), ranks from 1 among all items and without the excluded ones; 0 where
      there is no target, and in the second where the target itself is excluded.
    """
    check_query(index, query)
    B = query.vector.shape[0]
    chex.assert_shape(targets, (B,))
    score = score_items(index, query, targets[:, None])
    hashed = tie_hash(targets)[:, None]
    score_chunk = chunk_scores(index, query)

    def count(ahead: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        begin, fresh = _window(index, start, size)
        items = jax.lax.dynamic_slice_in_dim(index.entry_item, begin, size)
        scores = jnp.where(fresh, score_chunk(begin, size), -jnp.inf)
        return ahead + _ahead(scores, tie_hash(items), score, hashed).sum(axis=1), None

    size = min(chunk, index.n_entries)
    starts = jnp.arange(0, index.n_entries, size)
    ahead, _ = jax.lax.scan(count, jnp.zeros(B, jnp.int32), starts)
    rank = jnp.where(targets > 0, ahead + 1, 0)
    if exclude is None:
        return rank, rank
    chex.assert_shape(exclude, (B, None))
    gone = jnp.sort(exclude, axis=1)
    repeat = jnp.pad(gone[:, 1:] == gone[:, :-1], ((0, 0), (1, 0)))
    scores = jnp.where((gone > 0) & ~repeat, score_items(index, query, gone), -jnp.inf)
    removed = _ahead(scores, tie_hash(gone), score, hashed).sum(axis=1)
    kept = (targets > 0) & ~(gone == targets[:, None]).any(axis=1)
    return rank, jnp.where(kept, rank - removed, 0)


def score_items(index: Index, query: Query, items: jax.Array) -> jax.Array:
    """S1 of named items, each under the ID that the user's archetype gives it.

    Args:
      index: the catalogue.
      query: B users.
      items: int32[B, n], 0 = padding.

    Returns:
      float32[B, n], -inf for padding.
    """
    entry = index.entry_of[query.archetype[:, None], items]
    safe = jnp.maximum(entry, 0)
    scores = score_gathered(
        query, index.entry_coarse[safe], index.entry_fine[safe], index.entry_bias[safe]
    )
    return jnp.where(entry >= 0, scores, -jnp.inf)


def scan_entries(
    index: Index, query: Query, k: int, chunk: int, score_chunk: ScoreChunk
) -> Retrieved:
    """Runs over all entries in chunks and keeps the k best.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries at once.
      score_chunk: masked scores of a run of entries.

    Returns:
      items, scores and the number of entries scored.
    """
    B = query.vector.shape[0]
    size = min(chunk, index.n_entries)

    def step(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple, None]:
        begin, fresh = _window(index, start, size)
        scores = jnp.where(fresh, score_chunk(begin, size), -jnp.inf)
        items = jax.lax.dynamic_slice_in_dim(index.entry_item, begin, size)
        here = top_k_ties(scores, items, k)
        both = [jnp.concatenate(pair, axis=1) for pair in zip(best, here, strict=True)]
        return top_k_ties(both[1], both[0], k), None

    empty = (jnp.zeros((B, k), jnp.int32), jnp.full((B, k), -jnp.inf, jnp.float32))
    starts = jnp.arange(0, index.n_entries, size)
    (items, scores), _ = jax.lax.scan(step, empty, starts)
    # An archetype has one entry per item, whatever the others have.
    return Retrieved(items, scores, jnp.full(B, index.n_items, jnp.int32))


def chunk_scores(index: Index, query: Query) -> ScoreChunk:
    """Scores of a run of entries by look-ups, -inf where the archetype lacks the entry."""

    def score(start: jax.Array, size: int) -> jax.Array:
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        scores = score_entries(
            query, part(index.entry_coarse), part(index.entry_fine), part(index.entry_bias)
        )
        return jnp.where(has_archetype(part(index.entry_mask), query), scores, -jnp.inf)

    return score


def has_archetype(mask: jax.Array, query: Query) -> jax.Array:
    """bool[B, n], which of the entries uint32[n] belong to the user's archetype."""
    bit = query.archetype.astype(jnp.uint32)[:, None]
    return (jnp.right_shift(mask[None], bit) & 1) == 1


def check_query(index: Index, query: Query) -> None:
    """Raises AssertionError where the query was made with other tables than the index."""
    C, (L, K, _) = index.tables.coarse.shape[0], index.tables.fine.shape
    B = query.vector.shape[0]
    chex.assert_shape(query.coarse, (B, C))
    chex.assert_shape(query.fine, (B, L, K))
    chex.assert_shape(query.archetype, (B,))


def _window(index: Index, start: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Where a chunk begins, the last one moved back to be full, and which entries are new."""
    begin = jnp.minimum(start, index.n_entries - size)
    return begin, begin + jnp.arange(size) >= start


def _ahead(scores: jax.Array, hashes: jax.Array, target: jax.Array, hashed: jax.Array) -> jax.Array:
    """bool[B, n], which entries come before the target, float32[B, 1] with hash uint32[B, 1]."""
    tie = (scores == target) & (hashes < hashed)
    return ((scores > target) | tie) & (scores > -jnp.inf)
