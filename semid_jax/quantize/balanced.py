"""Assignment to cells of limited size, and k-means under that limit."""

from __future__ import annotations

import numpy as np

# Scores held at once; a chunk of points times all cells.
SCORES = 2**24


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
    bar_point = np.full(cells, n, np.int64)
    free = np.arange(n)
    while len(free):
        cell[free], distance[free] = _propose(z, centroids, free, bar, bar_point)
        touched = np.zeros(cells, bool)
        touched[cell[free]] = True
        held = np.flatnonzero((cell >= 0) & touched[cell])
        held = held[np.lexsort((held, distance[held], cell[held]))]
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
    halves = 0.5 * np.sum(centroids * centroids, axis=1)
    chosen = np.empty(len(free), np.int32)
    distance = np.empty(len(free), np.float32)
    chunk = max(1, SCORES // len(centroids))
    for start in range(0, len(free), chunk):
        part = free[start : start + chunk]
        points = z[part]
        norms = np.sum(points * points, axis=1, keepdims=True)
        scores = norms + 2.0 * (halves[None, :] - points @ centroids.T)
        closed = (scores > bar[None, :]) | (
            (scores == bar[None, :]) & (part[:, None] > bar_point[None, :])
        )
        scores[closed] = np.inf
        best = np.argmin(scores, axis=1)
        chosen[start : start + chunk] = best
        distance[start : start + chunk] = scores[np.arange(len(part)), best]
    return chosen, distance


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
