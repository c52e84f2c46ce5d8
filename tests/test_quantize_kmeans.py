"""k-means against slow numpy loops, and one device against two."""

import jax
import numpy as np
import pytest

from semid_jax.quantize import kmeans, nearest


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slow_nearest(points, centroids):
    """int[n, G] and f64[n, G], one point and group at a time."""
    n, groups, _ = points.shape
    number, distance = np.zeros((n, groups), int), np.zeros((n, groups))
    for i in range(n):
        for g in range(groups):
            squared = ((points[i, g].astype(float) - centroids[g]) ** 2).sum(axis=1)
            number[i, g], distance[i, g] = squared.argmin(), squared.min()
    return number, distance


def slow_lloyd(points, start, steps):
    """f64[G, K, d]; empty cells stay."""
    centroids = start.astype(float)
    for _ in range(steps):
        number, _ = slow_nearest(points, centroids)
        for g in range(len(centroids)):
            for k in range(centroids.shape[1]):
                mine = points[number[:, g] == k, g]
                if len(mine):
                    centroids[g, k] = mine.mean(axis=0)
    return centroids


def run_lloyd(points, start, steps, devices=None):
    groups, size, _ = start.shape
    sharded = kmeans.shard_points(points, groups * size, devices)
    return np.asarray(kmeans.lloyd(sharded, start, points, steps))


def test_nearest_agrees_with_a_loop():
    points, centroids = random(37, 3, 4), random(3, 9, 4, seed=1)
    number, distance = nearest.nearest_chunked(points, centroids)
    expected_number, expected_distance = slow_nearest(points, centroids)
    np.testing.assert_array_equal(number, expected_number)
    np.testing.assert_allclose(distance, expected_distance, atol=1e-4)


def test_nearest_is_the_same_in_many_chunks(monkeypatch):
    points, centroids = random(333, 2, 4), random(2, 5, 4, seed=1)
    whole = nearest.nearest_chunked.__wrapped__(points, centroids)[0]
    monkeypatch.setattr(nearest, "SCORES_CPU", 1)
    assert nearest.chunk_size(10) == 64
    parts = nearest.nearest_chunked.__wrapped__(points, centroids)[0]
    np.testing.assert_array_equal(whole, parts)


def test_nearest_gives_ties_to_the_lower_number():
    centroids = np.array([[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]], np.float32)
    points = np.array([[[0.0, 0.0]], [[1.0, 0.0]], [[-1.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(nearest.nearest_chunked(points, centroids)[0][:, 0], [0, 0, 1])


def test_nearest_of_no_points():
    assert nearest.nearest_chunked(random(0, 2, 4), random(2, 5, 4))[0].shape == (0, 2)


def test_lloyd_agrees_with_a_loop():
    points = random(150, 2, 3)
    start = np.ascontiguousarray(points[:6].transpose(1, 0, 2))
    np.testing.assert_allclose(
        run_lloyd(points, start, 4), slow_lloyd(points, start, 4), rtol=1e-4, atol=1e-5
    )


def test_lloyd_on_two_devices_equals_one():
    assert len(jax.devices()) == 2
    points = random(1001, 4, 8)
    start = np.ascontiguousarray(points[:16].transpose(1, 0, 2))
    one = run_lloyd(points, start, 8, jax.devices()[:1])
    two = run_lloyd(points, start, 8, jax.devices())
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_points_are_spread_over_all_devices():
    tiles, weights = kmeans.shard_points(random(1001, 1, 8), 4)
    assert len(tiles.sharding.device_set) == 2
    assert {shard.data.shape[0] for shard in tiles.addressable_shards} == {tiles.shape[0] // 2}
    assert float(weights.sum()) == 1001


def test_wide_points_without_structure_are_shared_evenly():
    points = random(1000, 1, 128)[:, 0]
    plain = kmeans.fit_kmeans(points[:, None], 64, 25, seed=0)[0]
    words = kmeans.fit_progressive(points, 64, 25, seed=0)
    distance = [((points[:, None] - w[None]) ** 2).sum(axis=2) for w in (plain, words)]
    assert distance[1].min(axis=1).sum() < distance[0].min(axis=1).sum()
    largest = [np.bincount(d.argmin(axis=1)).max() for d in distance]
    assert largest[1] < 0.05 * len(points) < largest[0]


def test_progressive_words_are_in_the_points_own_coordinates():
    centres = 20 * random(5, 1, 12)[:, 0]
    points = centres[np.arange(200) % 5] + random(200, 1, 12)[:, 0] + 100
    words = kmeans.fit_progressive(points.astype(np.float32), 5, 10, seed=1)
    near = np.linalg.norm(words[:, None] - (centres + 100)[None], axis=2)
    assert near.min(axis=0).max() < 1
    assert sorted(near.argmin(axis=1)) == [0, 1, 2, 3, 4]


def test_fit_on_two_devices_equals_one():
    points = random(500, 1, 6)
    one = kmeans.fit_kmeans(points, 10, 10, seed=3, devices=jax.devices()[:1])
    two = kmeans.fit_kmeans(points, 10, 10, seed=3)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_sums_by_product_equal_sums_by_scattering():
    points, weight = random(3, 40, 5), (np.arange(40) < 33).astype(np.float32)
    cells = np.random.default_rng(2).integers(0, 7, (3, 40)).astype(np.int32)
    for dense, sparse in zip(
        kmeans.cell_sums(points, weight, cells, 7, dense=True),
        kmeans.cell_sums(points, weight, cells, 7, dense=False),
        strict=True,
    ):
        np.testing.assert_allclose(dense, sparse, atol=1e-5)


def test_start_takes_points_and_covers_far_clusters():
    centres = 100.0 * np.eye(8, dtype=np.float32)
    points = (np.repeat(centres, 50, axis=0) + random(400, 8))[:, None, :]
    start = np.asarray(kmeans.start_centroids(points, 8, jax.random.key(0)))
    assert sorted(start[0].argmax(axis=1)) == list(range(8))
    assert all((points[:, 0] == chosen).all(axis=1).any() for chosen in start[0])


def test_start_draws_by_squared_distance():
    # From 0, the points 1 and 3 are drawn with odds 1 : 9.
    points = np.array([[[0.0]]] * 500 + [[[1.0]]] * 3 + [[[3.0]]] * 3, np.float32)
    seconds = []
    for seed in range(300):
        first, second = np.asarray(kmeans.start_centroids(points, 2, jax.random.key(seed)))[0, :, 0]
        if first == 0:
            seconds.append(second)
    assert len(seconds) > 250
    assert np.mean(np.array(seconds) == 3.0) == pytest.approx(0.9, abs=0.06)


def test_empty_cells_restart_at_the_worst_served_points():
    points = np.concatenate([random(60, 1, 2) * 0.01, random(60, 1, 2) * 0.01 + 5.0])
    points[-1] = [[40.0, 40.0]]
    start = np.array([[[0.0, 0.0], [900.0, 900.0], [-900.0, 900.0]]], np.float32)
    found = run_lloyd(points, start, 10)[0]
    number, distance = slow_nearest(points, found[None])
    assert set(number[:, 0]) == {0, 1, 2}
    assert distance.max() < 0.1


def test_more_cells_than_distinct_points_loses_nothing():
    points = np.repeat(random(5, 1, 3), 20, axis=0)
    found = kmeans.fit_kmeans(points, 9, 5, seed=0)
    assert np.isfinite(found).all()
    assert slow_nearest(points, found)[1].max() < 1e-6
