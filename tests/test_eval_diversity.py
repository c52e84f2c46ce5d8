"""Diversity metrics against values worked by hand and slow versions."""

import numpy as np
import pytest

from semid_jax.eval.diversity import entropy, gini, intra_list_diversity, list_metrics, novelty
from semid_jax.types import ItemFeatures


def test_gini_by_hand():
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0.0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)  # one of four takes all
    # sum over pairs |x_i - x_j| / (2 n^2 mean): pairs 1-3 -> 2 * 2 / (2 * 4 * 2)
    assert gini(np.array([3, 1])) == pytest.approx(0.25)
    assert gini(np.zeros(3, int)) == 0.0


def test_entropy_by_hand():
    assert entropy(np.array([2, 2, 0, 4])) == pytest.approx(1.5)
    assert entropy(np.array([7, 0])) == 0.0
    assert entropy(np.array([0, 0])) == 0.0


def test_novelty_by_hand():
    popularity = np.array([0, 8, 2, 0, 99])
    shown = np.array([[1, 2], [3, 0]])
    assert novelty(shown, popularity, 8) == pytest.approx((0 + 2 + 3) / 3)
    assert novelty(np.array([[4]]), popularity, 8) == 0.0  # chosen more often than there are users
    assert novelty(np.zeros((2, 2), int), popularity, 8) == 0.0


def test_intra_list_diversity_by_hand_and_masked():
    x = np.array([[9, 9], [2, 0], [0, 3], [-1, 0], [5, 5]], np.float32)
    present = np.array([True, True, True, True, False])
    # distances: 1-2 -> 1, 1-3 -> 2, 2-3 -> 1
    assert intra_list_diversity(np.array([[1, 2, 3]]), x, present) == pytest.approx(4 / 3)
    assert intra_list_diversity(np.array([[1, 3, 4]]), x, present) == pytest.approx(2.0)
    assert intra_list_diversity(np.array([[1, 3, 0], [1, 4, 0]]), x, present) == pytest.approx(2.0)
    assert intra_list_diversity(np.array([[1, 4]]), x, present) == 0.0


def test_intra_list_diversity_equals_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(31, 6)).astype(np.float32)
    present = rng.random(31) < 0.8
    shown = np.stack([rng.permutation(30)[:8] + 1 for _ in range(25)])
    expected = []
    for row in shown:
        row = [i for i in row if present[i]]
        pairs = [
            1 - x[i] @ x[j] / (np.linalg.norm(x[i]) * np.linalg.norm(x[j]))
            for a, i in enumerate(row)
            for j in row[a + 1 :]
        ]
        expected.append(np.mean(pairs))
    assert intra_list_diversity(shown, x, present, chunk=7) == pytest.approx(
        np.mean(expected), rel=1e-5
    )


def test_list_metrics_names_and_cut():
    features = ItemFeatures(
        x={"text": np.array([[0, 0], [1, 0], [0, 1], [1, 1], [1, 0]], np.float32)},
        present={"text": np.array([False, True, True, True, True])},
    )
    items = np.array([[1, 2, 3], [1, 2, 4]], np.int32)
    found = list_metrics(items, np.array([0, 4, 2, 1, 1]), features, n_users=4, k=2)
    assert found == {
        "coverage@2": 0.5,
        "gini@2": pytest.approx(0.5),
        "entropy@2": pytest.approx(1.0),
        "novelty@2": pytest.approx(0.5),
        "intra_list_diversity_text@2": pytest.approx(1.0),
    }
