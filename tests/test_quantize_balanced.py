"""Balanced cells against deferred acceptance as in the book, one point at a time."""

import numpy as np
import pytest

from semid_jax.quantize import balanced


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slow_assign(z, centroids, capacity):
    """Gale and Shapley with lists of preferences."""
    squared = ((z[:, None].astype(float) - centroids[None]) ** 2).sum(axis=2)
    wishes = [list(np.argsort(row, kind="stable")) for row in squared]
    members = [[] for _ in centroids]
    free = list(range(len(z)))
    while free:
        point = free.pop()
        cell = wishes[point].pop(0)
        members[cell].append((squared[point, cell], point))
        members[cell].sort()
        if len(members[cell]) > capacity:
            free.append(members[cell].pop()[1])
    found = np.zeros(len(z), int)
    for cell, kept in enumerate(members):
        found[[point for _, point in kept]] = cell
    return found


@pytest.mark.parametrize(("n", "cells", "capacity"), [(200, 7, 29), (200, 7, 60), (90, 30, 3)])
def test_assignment_agrees_with_a_loop(n, cells, capacity):
    z, centroids = random(n, 4) + 1.0, random(cells, 4, seed=1)
    found = balanced.assign_balanced(z, centroids, capacity)
    np.testing.assert_array_equal(found, slow_assign(z, centroids, capacity))
    assert np.bincount(found).max() <= capacity
    assert found.dtype == np.int32


def test_small_chunks_change_nothing(monkeypatch):
    z, centroids = random(120, 4), random(6, 4, seed=1)
    whole = balanced.assign_balanced(z, centroids, 20)
    monkeypatch.setattr(balanced, "chunk_size", lambda cells: 16)
    np.testing.assert_array_equal(balanced.assign_balanced(z, centroids, 20), whole)


def test_without_pressure_everyone_gets_the_nearest():
    z, centroids = random(300, 5), random(10, 5, seed=1)
    nearest = ((z[:, None] - centroids[None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(balanced.assign_balanced(z, centroids, 300), nearest)


def test_equal_points_are_dealt_out_in_order():
    z = np.zeros((10, 2), np.float32)
    centroids = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], np.float32)
    found = balanced.assign_balanced(z, centroids, 4)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def test_points_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 points do not fit into 3 cells of 3"):
        balanced.assign_balanced(random(10, 2), random(3, 2), 3)


def test_capacity_is_at_most_twice_the_mean_and_holds_all():
    for n in range(1, 200):
        for cells in range(1, n + 1, 7):
            capacity = balanced.capacity_of(n, cells, 2.0)
            assert capacity * cells >= n
            assert capacity <= 2 * n / cells
    assert balanced.capacity_of(10, 3, 1.0) == 4


def test_fitting_keeps_the_limit_and_lowers_the_loss():
    # Three quarters of the points in one lump: plain k-means would leave two cells nearly empty.
    z = np.concatenate([random(300, 3) * 0.1, random(100, 3, seed=2) * 0.1 + 9.0])
    start = np.array([[0.0, 0, 0], [9.0, 9, 9], [30, 0, 0], [0, 30, 0]], np.float32)

    def loss(centroids, cell):
        return ((z - centroids[cell]) ** 2).sum()

    before = loss(start, balanced.assign_balanced(z, start, 110))
    centroids, cell = balanced.fit_balanced(z, start, 110, 20)
    assert np.bincount(cell, minlength=4).max() <= 110
    assert loss(centroids, cell) < 0.05 * before
    for k in np.unique(cell):
        np.testing.assert_allclose(centroids[k], z[cell == k].mean(axis=0), atol=1e-4)
