"""The losses of PMAT against loops and values worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models.pmat_losses import (
    balance_loss,
    contrast,
    next_item_loss,
)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_next_item_loss_against_a_loop():
    target, scores, log_q = random(3, seed=1), random(3, 4, seed=2), random(4, seed=3)
    hit = np.zeros((3, 4), bool)
    hit[1, 2] = True
    weight = np.array([1.0, 2.0, 0.0], np.float32)
    found = next_item_loss(*map(jnp.asarray, (target, scores, log_q, hit, weight)))
    losses = []
    for i in range(3):
        total = np.exp(target[i])
        for s in range(4):
            if not hit[i, s]:
                total += np.exp(scores[i, s] - log_q[s])
        losses.append(np.log(total) - target[i])
    np.testing.assert_allclose(found, (losses[0] + 2 * losses[1]) / 3, rtol=1e-5)


def test_next_item_loss_of_an_exact_sample_is_the_full_softmax():
    """With every item once in the sample, log q = 0 and the target struck out, nothing is lost."""
    scores = random(1, 6)
    hit = np.arange(6)[None] == 4
    found = next_item_loss(
        jnp.asarray(scores[:, 4]), jnp.asarray(scores), jnp.zeros(6), jnp.asarray(hit), jnp.ones(1)
    )
    np.testing.assert_allclose(found, np.log(np.exp(scores).sum()) - scores[0, 4], rtol=1e-5)


def test_contrast_against_a_loop():
    left, right = random(5, 3, seed=1), random(5, 3, seed=2)
    losses = []
    for i in range(5):
        logits = [
            left[i] @ right[j] / np.linalg.norm(left[i]) / np.linalg.norm(right[j]) / 0.1
            for j in range(5)
        ]
        losses.append(np.log(np.sum(np.exp(logits))) - logits[i])
    np.testing.assert_allclose(contrast(left, right), np.mean(losses), rtol=1e-4)
    assert contrast(left, left) < contrast(left, right)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # Uniform for all: no relative entropy, but no user differs (sqrt(1e-6) of .1).
        ([[0.5, 0.5], [0.5, 0.5]], 0.99),
        # Half of the users on each modality: neither collapse.
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        # All users on one modality: -mean(log(2 x .9), log(2 x .1)) and no spread.
        ([[0.9, 0.1], [0.9, 0.1]], -(np.log(1.8) + np.log(0.2)) / 2 + 0.99),
    ],
)
def test_balance_by_hand(alpha, expected):
    found = balance_loss(jnp.asarray(alpha), jnp.ones(2))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_balance_ignores_positions_without_weight_and_single_modalities():
    alpha = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(balance_loss(alpha, jnp.asarray([1.0, 1.0, 0.0])), 0.0, atol=1e-4)
    assert balance_loss(jnp.ones((3, 1)), jnp.ones(3)) == 0.0
