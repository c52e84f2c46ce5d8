"""`rpg_graph`: RPG's graph-constrained decoding, batched, with static shapes.

Hou et al., "Generating Long Semantic IDs in Parallel", KDD 2025, section 3.3. Items are joined to
those whose IDs are alike under the trained embeddings; a search starts at random items and, hop by
hop, scores the neighbours of the best items seen so far.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.decode.exact import score_items
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, Query
from semid_jax.decode.topk import largest, top_k_ties

ROWS = 64  # of the similarity matrix at a time: it stays in the cache


@struct.dataclass
class Graph:
    """Neighbours of every item.

    Attributes:
      neighbours: int32[N + 1, E], the most similar items, the item itself among them; row 0 is 0.
    """

    neighbours: jax.Array


def build_graph(index: Index, edges: int) -> Graph:
    """The E nearest items of every item; time O(N^2 L d), memory O(N E).

    The similarity of two items is the mean over digits of (1 + cos(E[j, f_j], E[j, f'_j])) / 2,
    whose order is that of the inner product of the unit embeddings laid end to end.

    Args:
      index: of one archetype, with unit digit embeddings.
      edges: E, at most N.
    """
    L = index.tables.fine.shape[0]
    fine = index.entry_fine[index.entry_of[0, 1:]].astype(jnp.int32)
    vectors = index.tables.fine[jnp.arange(L), fine].reshape(index.n_items, -1)
    edges = min(edges, index.n_items)
    rows = min(ROWS, index.n_items)

    found = np.zeros((index.n_items + 1, edges), np.int32)
    for first in range(0, index.n_items, rows):
        first = min(first, index.n_items - rows)
        found[first + 1 : first + 1 + rows] = np.asarray(_nearest(vectors, first, rows, edges)) + 1
    return Graph(jnp.asarray(found))


@functools.partial(jax.jit, static_argnames=("rows", "edges"))
def _nearest(vectors: jax.Array, first: int, rows: int, edges: int) -> jax.Array:
    """int32[rows, E], which vectors are nearest to those from `first` on."""
    part = jax.lax.dynamic_slice_in_dim(vectors, first, rows)
    alike = jax.lax.optimization_barrier(jnp.dot(part, vectors.T, precision=PRECISION))
    return largest(alike, edges)[1]


@functools.partial(jax.jit, static_argnames=("k", "beam", "hops"))
def retrieve_rpg_graph(
    index: Index, graph: Graph, query: Query, k: int, beam: int, hops: int, seed: int = 0
) -> Retrieved:
    """The best items that a walk over the graph meets.

    Args:
      index: the catalogue, of one archetype.
      graph: of `build_graph`.
      query: B users.
      k: items returned.
      beam: b, items whose neighbours are looked at in a hop.
      hops: q.
      seed: of the first items, drawn anew for every row of the batch.

    Returns:
      items, scores and the number of items scored, those met again in a later hop counted again.
    """
    B = query.vector.shape[0]
    kept = max(k, beam)
    drawn = jax.random.randint(jax.random.key(seed), (B, beam), 1, index.n_items + 1)
    items = jnp.sort(drawn, axis=1)
    items, scores = top_k_ties(_score_distinct(index, query, items), items, kept)
    scored = jnp.sum(items > 0, axis=1)
    for _ in range(hops):
        near = graph.neighbours[items[:, :beam]].reshape(B, -1)
        met = jnp.sort(jnp.concatenate([items, near], axis=1), axis=1)
        found = _score_distinct(index, query, met)
        scored += jnp.sum(found > -jnp.inf, axis=1) - jnp.sum(items > 0, axis=1)
        items, scores = top_k_ties(found, met, kept)
    return Retrieved(items[:, :k], scores[:, :k], scored)


def _score_distinct(index: Index, query: Query, items: jax.Array) -> jax.Array:
    """float32[B, n], scores of items int32[B, n], sorted by row; -inf for 0 and for repeats."""
    repeat = jnp.pad(items[:, 1:] == items[:, :-1], ((0, 0), (1, 0)))
    return score_items(index, query, jnp.where(repeat, 0, items))
