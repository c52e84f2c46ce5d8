"""Exact search among dense item vectors: for models that score by one inner product per item."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION
from semid_jax.decode.topk import is_ahead, tie_hash, top_k_ties


@functools.partial(jax.jit, static_argnames=("k",))
def retrieve_dense(vectors: jax.Array, queries: jax.Array, k: int) -> Retrieved:
    """The k items of the largest inner products, ties by hash.

    Args:
      vectors: float32[N + 1, F], row 0 is padding.
      queries: float32[B, F].
      k: items returned.

    Returns:
      items, scores and the number of items scored.
    """
    scores = _scores(vectors, queries)
    items, best = top_k_ties(scores, jnp.arange(len(vectors)), k)
    return Retrieved(items, best, jnp.full(len(queries), len(vectors) - 1, jnp.int32))


@jax.jit
def dense_rank(
    vectors: jax.Array, queries: jax.Array, targets: jax.Array, exclude: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The rank of one item per user in the full order by (score, tie hash).

    Args:
      vectors: float32[N + 1, F], row 0 is padding.
      queries: float32[B, F].
      targets: int32[B], item numbers.
      exclude: int32[B, H], items taken out of the list, 0 = padding, repeats allowed; or None.

    Returns:
      (int32[B], int32[B]), ranks from 1 among all items and without the excluded ones; 0 where the
      target's score is no number, and in the second where it is excluded.
    """
    B = len(queries)
    chex.assert_shape(targets, (B,))
    scores = _scores(vectors, queries)
    own = jnp.take_along_axis(scores, targets[:, None], axis=1)
    hashes = tie_hash(jnp.arange(len(vectors)))
    ahead = is_ahead(scores, hashes, own, tie_hash(targets)[:, None])
    there = ~jnp.isnan(own[:, 0])
    rank = jnp.where(there, jnp.sum(ahead, axis=1) + 1, 0)
    if exclude is None:
        return rank, rank
    gone = jnp.zeros(scores.shape, bool).at[jnp.arange(B)[:, None], exclude].set(True)
    gone = gone.at[:, 0].set(False)
    kept = there & ~jnp.take_along_axis(gone, targets[:, None], axis=1)[:, 0]
    return rank, jnp.where(kept, rank - jnp.sum(ahead & gone, axis=1), 0)


def _scores(vectors: jax.Array, queries: jax.Array) -> jax.Array:
    """float32[B, N + 1], -inf for the padding."""
    scores = jnp.dot(queries, vectors.T, precision=PRECISION)
    return scores.at[:, 0].set(-jnp.inf)
