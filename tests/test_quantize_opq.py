"""The rotation and the levels: orthogonal, dealt out evenly, and worth their cost."""

import numpy as np

from semid_jax.quantize import opq


def correlated(n=600, width=8, seed=0):
    """Vectors whose variance falls off along random axes."""
    generator = np.random.default_rng(seed)
    axes = np.linalg.qr(generator.normal(size=(width, width)))[0]
    scale = 3.0 * 0.5 ** np.arange(width)
    return (generator.normal(size=(n, width)) * scale @ axes.T).astype(np.float32)


def loss(z, rotation, fine):
    """Squared error of product quantisation, by brute force."""
    parts = (z @ rotation).reshape(len(z), len(fine), -1)
    squared = ((parts[:, :, None, :] - fine[None]) ** 2).sum(axis=3)
    return squared.min(axis=2).sum()


def test_allocation_is_orthogonal_and_even():
    z = correlated(width=8)
    rotation = opq.allocate_eigenvalues(z, 4)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(8), atol=1e-5)
    variance = np.var(z @ rotation, axis=0).reshape(4, 2)
    # Eight axes each a quarter of the one before: first with last, second with second last, …
    products = variance.prod(axis=1)
    assert products.max() / products.min() < 1.6
    covariance = np.cov((z @ rotation).T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)


def test_allocation_of_flat_data_is_still_a_rotation():
    z = np.zeros((50, 6), np.float32)
    z[:, 0] = np.arange(50)
    rotation = opq.allocate_eigenvalues(z, 3)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(6), atol=1e-5)


def test_procrustes_finds_a_planted_rotation():
    z = correlated()
    planted = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))[0]
    np.testing.assert_allclose(opq.procrustes(z, z @ planted), planted, atol=1e-3)


def test_turns_beat_allocation_and_allocation_beats_none():
    generator = np.random.default_rng(1)
    # A mixture is what the turns can improve on; a Gaussian is solved by allocation.
    z = correlated(2000) + 4.0 * generator.normal(size=(6, 8))[generator.integers(0, 6, 2000)]
    z = z.astype(np.float32)
    turned = opq.fit_opq(z, 4, 8, 20, 10, seed=0)
    allocated = opq.fit_opq(z, 4, 8, 20, 0, seed=0)
    np.testing.assert_allclose(turned[0].T @ turned[0], np.eye(8), atol=1e-4)
    assert loss(z, *turned) < 0.97 * loss(z, *allocated)


def test_levels_lose_less_and_less():
    z = correlated()
    left, before = z, (z**2).sum()
    for words in opq.fit_levels(z, 3, 16, 10, seed=0):
        code = ((left[:, None] - words[None]) ** 2).sum(axis=2).argmin(axis=1)
        left = left - words[code]
        assert (left**2).sum() < 0.8 * before
        before = (left**2).sum()


def test_rotation_is_the_same_twice():
    z = correlated()
    first, second = (opq.fit_opq(z, 4, 8, 6, 3, seed=0) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[1].shape == (4, 8, 2)
