"""Entries of a cell put into leaves of alike ones: the last level of the hierarchy.

A group is cut in two across the direction in which it varies most, and so are its halves, until
none is larger than a leaf. A cut lies between whole leaves, so all of a group but its last are
full.
"""

from __future__ import annotations

import numpy as np

POWER = 4  # iterations that turn an axis into the direction of most variance


def leaf_order(points: np.ndarray, group: np.ndarray, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts groups of points into leaves.

    Args:
      points: float32[n, r].
      group: int[n].
      leaf: S, the most points of a leaf.

    Returns:
      int64[leaves, S], rows of `points`, leaves of a group side by side and groups in order; and
      bool[leaves, S], False where a leaf is not full and its first point is repeated.
    """
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=group[order[:1]] - 1))
    while True:
        sizes = np.diff(starts, append=len(order))
        if sizes.max() <= leaf:
            break
        part = np.repeat(np.arange(len(starts)), sizes)
        along = _along_widest(points[order], starts, sizes, part)
        order = order[np.lexsort((along, part))]
        leaves = -(-sizes // leaf)
        halves = starts + leaves // 2 * leaf
        starts = np.unique(np.concatenate([starts, halves[leaves > 1]]))
    inside = np.arange(leaf)
    real = inside < sizes[:, None]
    return order[np.where(real, starts[:, None] + inside, starts[:, None])], real


def _along_widest(
    points: np.ndarray, starts: np.ndarray, sizes: np.ndarray, part: np.ndarray
) -> np.ndarray:
    """float32[n], where points lie along the direction in which their part varies most.

    Args:
      points: float32[n, r], part by part.
      starts: int[p], where parts begin.
      sizes: int[p].
      part: int[n].
    """
    means = np.add.reduceat(points, starts) / sizes[:, None].astype(np.float32)
    around = points - means[part]
    widest = np.argmax(np.add.reduceat(around**2, starts), axis=1)
    direction = np.eye(points.shape[1], dtype=np.float32)[widest]
    for _ in range(POWER):
        along = np.einsum("nr,nr->n", around, direction[part])
        direction = np.add.reduceat(around * along[:, None], starts)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-30
    return np.einsum("nr,nr->n", around, direction[part])
