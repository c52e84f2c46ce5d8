"""`exact`: every entry is scored by look-ups, in chunks with a running top k.

PQTopK: Petrov, Macdonald and Tonellotto, "Efficient Inference of Sub-Item Id-based Sequential
Recommendation Models with Millions of Items", RecSys 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, score_entries, score_gathered
from semid_jax.decode.topk import is_ahead, tie_hash, top_k_ties

Result = TypeVar("Result")
# Scores held at once. A CPU's stay in its cache; an accelerator wants few and large kernels: with
# 2^26 an H200 takes 7.5 ms for 256 users and a million items, 35 ms with a CPU's 2^21.
SCORES_ACCELERATOR = 1 << 26
CHUNK = 8192
# Choosing many takes as long as scoring a CPU's chunk: so many or more are chosen of chunks so many
# times larger. Of 200,000 entries 256 users' best 100 take 480 ms where they took 700.
MANY, LARGER = 32, 4


@struct.dataclass
class Entries:
    """Entries of the index that are scored for every user of the batch.

    Attributes:
      item: int32[n].
      coarse: int32[n].
      fine: uint8[n, L].
      bias: float32[n].
      mask: uint32[n], bit a is set where archetype a has the entry.
    """

    item: jax.Array
    coarse: jax.Array
    fine: jax.Array
    bias: jax.Array
    mask: jax.Array


# Some entries -> their scores float32[B, n], of whatever archetype.
Score = Callable[[Entries], jax.Array]


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def retrieve_exact(index: Index, query: Query, k: int, chunk: int = 0) -> Retrieved:
    """The k best items under S1, by scoring all of them.

    A batch whose users share one archetype reads only that archetype's N entries, so sort the
    users by archetype where speed matters.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries scored at once, 0 for what suits the platform; memory is about 8 B chunk
        bytes.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    return scan_catalogue(index, query, k, chunk, look_up(query))


@functools.partial(jax.jit, static_argnames=("chunk",))
def exact_rank(
    index: Index,
    query: Query,
    targets: jax.Array,
    exclude: jax.Array | None = None,
    chunk: int = 0,
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
      there is no target or its score is no number, and in the second where it is excluded.
    """
    check_query(index, query)
    B = query.vector.shape[0]
    chex.assert_shape(targets, (B,))
    score = score_items(index, query, targets[:, None])
    hashed = tie_hash(targets)[:, None]

    def count(ahead: jax.Array, scores: jax.Array, part: Entries) -> jax.Array:
        return ahead + is_ahead(scores, tie_hash(part.item), score, hashed).sum(axis=1)

    def run(entries: Entries) -> jax.Array:
        zero = jnp.zeros(B, jnp.int32)
        return _scan(entries, query, chunk, look_up(query), zero, count)

    there = (targets > 0) & ~jnp.isnan(score[:, 0])
    rank = jnp.where(there, _over_entries(index, query, run) + 1, 0)
    if exclude is None:
        return rank, rank
    chex.assert_shape(exclude, (B, None))
    gone = jnp.sort(exclude, axis=1)
    repeat = jnp.pad(gone[:, 1:] == gone[:, :-1], ((0, 0), (1, 0)))
    scores = jnp.where((gone > 0) & ~repeat, score_items(index, query, gone), -jnp.inf)
    removed = is_ahead(scores, tie_hash(gone), score, hashed).sum(axis=1)
    kept = there & ~(gone == targets[:, None]).any(axis=1)
    return rank, jnp.where(kept, rank - removed, 0)


@functools.partial(jax.jit, static_argnames=("chunk",))
def cell_masses(index: Index, query: Query, chunk: int = CHUNK) -> jax.Array:
    """How the softmax of S1 over all items divides among the coarse cells.

    Args:
      index: the catalogue.
      query: B users.
      chunk: entries scored at once.

    Returns:
      float32[B, C], rows sum to 1.
    """
    check_query(index, query)
    B, C = query.coarse.shape
    empty = (jnp.full((B, 1), -1e30), jnp.zeros((B, C)))

    def add(
        carry: tuple[jax.Array, jax.Array], scores: jax.Array, part: Entries
    ) -> tuple[jax.Array, jax.Array]:
        largest, mass = carry
        now = jnp.maximum(largest, jnp.max(scores, axis=1, keepdims=True))
        here = jnp.exp(scores - now) @ jax.nn.one_hot(part.coarse, C)
        return now, mass * jnp.exp(largest - now) + here

    def run(entries: Entries) -> tuple[jax.Array, jax.Array]:
        return _scan(entries, query, chunk, look_up(query), empty, add)

    _, mass = _over_entries(index, query, run)
    return mass / jnp.sum(mass, axis=1, keepdims=True)


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


def look_up(query: Query) -> Score:
    """Scores of entries as sums of look-ups in the query's tables."""
    return lambda part: score_entries(query, part.coarse, part.fine, part.bias)


def scan_catalogue(index: Index, query: Query, k: int, chunk: int, score: Score) -> Retrieved:
    """Scores every entry in chunks and keeps the k best.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries at once, 0 for what suits the platform.
      score: how a chunk is scored.

    Returns:
      items, scores and the number of entries scored.
    """
    B = query.vector.shape[0]
    chunk = chunk or _chunk_of(B, k)
    empty = (jnp.zeros((B, k), jnp.int32), jnp.full((B, k), -jnp.inf, jnp.float32))

    def keep(best: tuple, scores: jax.Array, part: Entries) -> tuple[jax.Array, jax.Array]:
        here = top_k_ties(scores, part.item, k)
        items, scores = (jnp.concatenate(pair, axis=1) for pair in zip(best, here, strict=True))
        return top_k_ties(scores, items, k)

    def run(entries: Entries) -> tuple[jax.Array, jax.Array]:
        return _scan(entries, query, chunk, score, empty, keep)

    items, scores = _over_entries(index, query, run)
    # An archetype has one entry per item, whatever the others have.
    return Retrieved(items, scores, jnp.full(B, index.n_items, jnp.int32))


def check_query(index: Index, query: Query) -> None:
    """Raises AssertionError where the query was made with other tables than the index."""
    C, (L, K, _) = index.tables.coarse.shape[0], index.tables.fine.shape
    B = query.vector.shape[0]
    chex.assert_shape(query.coarse, (B, C))
    chex.assert_shape(query.fine, (B, L, K))
    chex.assert_shape(query.archetype, (B,))


def _over_entries(index: Index, query: Query, run: Callable[[Entries], Result]) -> Result:
    """Runs over the entries that the batch needs: one archetype's, or all."""
    every = Entries(
        index.entry_item,
        index.entry_coarse,
        index.entry_fine,
        index.entry_bias,
        index.entry_mask,
    )
    if index.n_archetypes == 1:
        return run(every)
    first = query.archetype[0]

    def one_archetype() -> Result:
        own: Entries = jax.tree.map(lambda x: x[index.lists[first]], every)
        return run(own)

    result: Result = jax.lax.cond(
        jnp.all(query.archetype == first), one_archetype, lambda: run(every)
    )
    return result


def _chunk_of(users: int, chosen: int = 0) -> int:
    """Entries scored at once for so many users, of whom each chooses so many."""
    if jax.default_backend() == "cpu":
        return CHUNK * (LARGER if chosen >= MANY else 1)
    return max(SCORES_ACCELERATOR // users, CHUNK)


def _scan(
    entries: Entries,
    query: Query,
    chunk: int,
    score: Score,
    start: Result,
    step: Callable[[Result, jax.Array, Entries], Result],
) -> Result:
    """Folds `step` over chunks of entries and their scores, -inf for other archetypes' entries."""
    n = entries.item.shape[0]
    size = min(chunk or _chunk_of(len(query.archetype)), n)
    bit = query.archetype.astype(jnp.uint32)[:, None]

    def fold(carry: Result, first: jax.Array) -> tuple[Result, None]:
        # The last chunk is moved back to be full; what it repeats is masked.
        begin = jnp.minimum(first, n - size)
        part: Entries = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, begin, size), entries
        )
        own = (jnp.right_shift(part.mask, bit) & 1) == 1
        fresh = begin + jnp.arange(size) >= first
        return step(carry, jnp.where(own & fresh, score(part), -jnp.inf), part), None

    result, _ = jax.lax.scan(fold, start, jnp.arange(0, n, size))
    return result
