"""Correlation of weights and scores of drift detection, by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from semid_jax.eval.preference import drift_scores, spearman, spearman_alpha


def test_spearman_equals_scipy_also_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 50), rng.normal(size=50)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1.0)


def test_constant_weights_order_nobody():
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0
    assert spearman(np.ones(1), np.ones(1)) == 0.0


def test_spearman_alpha_is_the_mean_over_modalities_of_the_chosen_users():
    planted = np.array([[0.1, 0.9], [0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    learned = np.array([[0.2, 0.4], [0.3, 0.5], [0.4, 0.6], [9.0, 0.0]])
    users = np.array([True, True, True, False])
    assert spearman_alpha(learned, planted, users) == pytest.approx(0.0)  # +1 and -1
    assert spearman_alpha(learned[:, :1], planted[:, :1], users) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="differ"):
        spearman_alpha(learned, planted[:, :1])


def test_drift_scores_by_hand():
    #             alpha  alpha  interest  none  none
    kind = np.array([1, 1, 2, 0, 0])
    time = np.array([20, 30, 15, -1, -1])
    fired = [(0, 20), (0, 25), (1, 41), (2, 25), (3, 4), (3, 9)]
    users, times = np.array(fired).T
    found = drift_scores(users, times, time, kind, window=10)
    # hits: user 0 once (the second is false), user 1 too late, user 2 at the window's end
    assert found["drift_precision"] == pytest.approx(2 / 6)
    assert found["drift_recall"] == pytest.approx(2 / 3)
    assert found["drift_f1"] == pytest.approx(4 / 9)
    assert found["drift_precision_alpha"] == pytest.approx(1 / 3)
    assert found["drift_recall_alpha"] == pytest.approx(1 / 2)
    assert found["drift_f1_alpha"] == pytest.approx(2 / 5)
    assert found["drift_f1_interest"] == pytest.approx(1.0)
    assert found["false_trigger_rate"] == pytest.approx(1 / 2)


def test_trigger_before_the_drift_is_false():
    found = drift_scores(np.array([0]), np.array([19]), np.array([20]), np.array([1]))
    assert found["drift_precision"] == found["drift_recall"] == found["drift_f1"] == 0.0


def test_silent_detector_scores_zero():
    none = np.zeros(0, int)
    found = drift_scores(none, none, np.array([20, -1]), np.array([2, 0]))
    assert found["drift_f1"] == found["drift_recall"] == found["false_trigger_rate"] == 0.0
