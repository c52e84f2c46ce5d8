"""`exact_matmul`: the same as `exact`, as one matrix product per chunk.

For accelerators, where a product of dense vectors may beat look-ups; scores agree with `exact` up
to the rounding of another order of summation.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from semid_jax.decode.exact import Entries, check_query, scan_catalogue
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, Query, item_vectors


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def retrieve_exact_matmul(index: Index, query: Query, k: int, chunk: int = 0) -> Retrieved:
    """The k best items under S1, by the inner product with every item vector.

    Args:
      index: the catalogue.
      query: B users.
      k: items returned.
      chunk: entries scored at once, 0 for what suits the platform; their vectors, float32[chunk,
        D + L * d + 1], are made on the way and never stored.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)

    def score(part: Entries) -> jax.Array:
        vectors = item_vectors(index.tables, part.coarse, part.fine, part.bias)
        return jnp.dot(query.vector, vectors.T, precision=PRECISION)

    return scan_catalogue(index, query, k, chunk, score)
