"""The nearest of K centroids, in chunks: the one kernel of all quantisers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# A table of scores of this many floats stays in a CPU's cache, which halves the time there.
SCORES_CPU = 2**20
SCORES_ACCELERATOR = 2**26


def chunk_size(per_point: int) -> int:
    """Points per chunk so that the score table [points, per_point] stays small.

    Args:
      per_point: scores that one point needs (groups times centroids).

    Returns:
      A power of two, at least 64.
    """
    budget = SCORES_CPU if jax.default_backend() == "cpu" else SCORES_ACCELERATOR
    return max(64, 1 << max(0, (budget // max(per_point, 1)).bit_length() - 1))


def half_distances(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """Squared distance of points to centroids, halved, less the point's own half squared norm.

    Args:
      points: f32[G, n, d].
      centroids: f32[G, K, d].

    Returns:
      f32[G, K, n]: |c|^2 / 2 - <x, c>, which orders centroids as the distance does.
    """
    dots = jnp.einsum("gkd,gnd->gkn", centroids, points, precision=jax.lax.Precision.HIGHEST)
    return 0.5 * jnp.sum(centroids * centroids, axis=-1)[:, :, None] - dots


def nearest(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest centroid of each point; ties go to the lower number.

    Args:
      points: f32[G, n, d].
      centroids: f32[G, K, d].

    Returns:
      (int32[G, n] numbers, f32[G, n] squared distances).
    """
    scores = half_distances(points, centroids)
    best = jnp.min(scores, axis=1)
    # Two plain reductions: XLA vectorises them on a CPU, its argmin it does not.
    numbers = jnp.arange(centroids.shape[1], dtype=jnp.int32)[None, :, None]
    number = jnp.min(jnp.where(scores == best[:, None, :], numbers, centroids.shape[1] - 1), axis=1)
    norms = jnp.sum(points * points, axis=-1)
    return number, jnp.maximum(norms + 2.0 * best, 0.0)


@jax.jit
def nearest_chunked(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`nearest` without ever holding more than one chunk of scores.

    Args:
      points: f32[n, G, d], a point's groups side by side.
      centroids: f32[G, K, d].

    Returns:
      (int32[n, G] numbers, f32[n, G] squared distances).
    """
    n, groups, width = points.shape
    chunk = min(chunk_size(groups * centroids.shape[1]), max(n, 1))
    chunks = -(-n // chunk) if n else 0
    padded = jnp.pad(points, ((0, chunks * chunk - n), (0, 0), (0, 0)))
    tiles = padded.reshape(chunks, chunk, groups, width).transpose(0, 2, 1, 3)
    numbers, distances = jax.lax.map(lambda tile: nearest(tile, centroids), tiles)

    def rows(tile: jax.Array) -> jax.Array:
        return tile.transpose(0, 2, 1).reshape(chunks * chunk, groups)[:n]

    return rows(numbers), rows(distances)
