"""Assignment to cells of limited size, and k-means under that limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.quantize.nearest import chunk_size, half_distances


def capacity_of(points: int, cells: int, balance: float) -> int:
    """The most points a cell may hold.

    Args:
      points: n.
      cells: C.
      balance: largest over mean size, at least 1.

    Returns:
      floor(balance n / C), but never so little that not all points fit.
    """
    return max(int(balance * points / cells), -(-points // cells))


def assign_balanced(z: np.ndarray, centroids: np.ndarray, capacity: int) -> np.ndarray:
    """Assigns each point to a cell, as near as the limit on the cells' sizes lets it be.

    Deferred acceptance (Gale & Shapley 1962): a point without a cell proposes to the nearest one
    that has not turned it away; a cell keeps the nearest `capacity` of those who ever proposed.
    No point and cell then both prefer each other to what they have. Ties go to the lower point
    and the lower cell, so the result is deterministic.

    Args:
      z: f32[n, D].
      centroids: f32[C, D].
      capacity: most points per cell, capacity * C >= n.

    Returns:
      int32[n], cell of each point.

    Raises:
      ValueError: the points do not fit.
    """
    n, cells = len(z), len(centroids)
    if capacity * cells < n:
        raise ValueError(f"{n} points do not fit into {cells} cells of {capacity}")
    cell = np.full(n, -1, np.int32)
    distance = np.full(n, np.inf, np.float32)
    # The worst kept (distance, point) of a full cell; a cell only ever gets choosier, so whoever
    # is not better than this has been, or would be, turned away.
    bar = np.full(cells, np.inf, np.float32)
    bar_point = np.full(cells, n, np.int32)
    free = np.arange(n)
    while len(free):
        cell[free], distance[free] = _propose(z, centroids, free, bar, bar_point)
        # Only a cell that is full, and was proposed to, has anyone to turn away.
        crowded = np.zeros(cells, bool)
        crowded[cell[free]] = True
        crowded &= np.bincount(cell, minlength=cells) >= capacity
        held = np.flatnonzero(crowded[cell])
        held = held[np.lexsort((distance[held], cell[held]))]
        owner = cell[held]
        rank = np.arange(len(held)) - np.searchsorted(owner, owner)
        last = held[rank == capacity - 1]
        bar[cell[last]], bar_point[cell[last]] = distance[last], last
        free = np.sort(held[rank >= capacity])
        cell[free] = -1
    return cell


def _propose(
    z: np.ndarray,
    centroids: np.ndarray,
    free: np.ndarray,
    bar: np.ndarray,
    bar_point: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest cell that would still take each free point, and the squared distance to it."""
    chosen = np.empty(len(free), np.int32)
    distance = np.empty(len(free), np.float32)
    # One shape, or a point might be as near to a cell in one round and a bit nearer in the next.
    chunk = min(chunk_size(len(centroids)), len(z))
    cells = jnp.asarray(centroids), jnp.asarray(bar), jnp.asarray(bar_point)
    for start in range(0, len(free), chunk):
        part = free[start : start + chunk]
        asked = np.pad(part, (0, chunk - len(part)), mode="edge")
        best, at = _nearest_open(z[asked], asked.astype(np.int32), *cells)
        chosen[start : start + chunk] = np.asarray(best)[: len(part)]
        distance[start : start + chunk] = np.asarray(at)[: len(part)]
    return chosen, distance


@jax.jit
def _nearest_open(
    points: jax.Array,
    number: jax.Array,
    centroids: jax.Array,
    bar: jax.Array,
    bar_point: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The nearest of the cells that would take a point, see `assign_balanced`.

    Args:
      points: f32[n, D].
      number: int32[n], of the points.
      centroids: f32[C, D].
      bar: f32[C], the worst distance that a full cell keeps.
      bar_point: int32[C], and whose it is.

    Returns:
      (int32[n] cells, f32[n] squared distances).
    """
    norms = jnp.sum(points * points, axis=1)
    distance = norms + 2.0 * half_distances(points[None], centroids[None])[0]
    tie = (distance == bar[:, None]) & (number > bar_point[:, None])
    distance = jnp.where((distance > bar[:, None]) | tie, jnp.inf, distance)
    best = jnp.min(distance, axis=0)
    cell = jnp.arange(len(centroids), dtype=jnp.int32)[:, None]
    return jnp.min(jnp.where(distance == best, cell, len(centroids) - 1), axis=0), best


def fit_balanced(
    z: np.ndarray, start: np.ndarray, capacity: int, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's k-means with the balanced assignment in place of the nearest one.

    Args:
      z: f32[n, D].
      start: f32[C, D], centroids to start from, as plain k-means leaves them.
      capacity: most points per cell.
      iterations: most steps; it ends sooner when nothing moves.

    Returns:
      (f32[C, D] centroids, int32[n] the balanced assignment to them).
    """
    centroids = np.array(start, np.float32)
    cell = assign_balanced(z, centroids, capacity)
    for _ in range(iterations):
        counts = np.bincount(cell, minlength=len(centroids))
        order = np.argsort(cell, kind="stable")
        filled = np.flatnonzero(counts)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])[filled]
        sums = np.add.reduceat(z[order], first, axis=0, dtype=np.float64)
        centroids[filled] = sums / counts[filled, None]
        moved = assign_balanced(z, centroids, capacity)
        if np.array_equal(moved, cell):
            break
        cell = moved
    return centroids, cell
