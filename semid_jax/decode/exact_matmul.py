"""`exact_matmul`: the same as `exact`, as one matrix product per chunk.

For accelerators, where a product of dense vectors may beat look-ups; scores agree with `exact` up
to the rounding of another order of summation.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from semid_jax.decode.exact import check_query, has_archetype, scan_entries
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, Query, item_vectors


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def retrieve_exact_matmul(index: Index, query: Query, k: int, chunk: int = 8192) -> Retrieved:
    """The k best items under S1, by the inner product with every item vector.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries scored at once; their vectors, float32[chunk, D + L * d + 1], are made on the
        way and never stored.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)

    def score(start: jax.Array, size: int) -> jax.Array:
        part = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        vectors = item_vectors(
            index.tables, part(index.entry_coarse), part(index.entry_fine), part(index.entry_bias)
        )
        scores = jnp.dot(query.vector, vectors.T, precision=PRECISION)
        return jnp.where(has_archetype(part(index.entry_mask), query), scores, -jnp.inf)

    return scan_entries(index, query, k, chunk, score)
