"""Candidates are drawn as often as their proposal says."""

import jax
import numpy as np

from semid_jax.train.proposal import draw_items, make_proposal


def test_items_are_drawn_as_often_as_they_are_said_to_be():
    counts = np.array([0, 5, 0, 1, 30, 0, 4])
    proposal = make_proposal(counts)
    drawn = np.asarray(draw_items(proposal, jax.random.key(0), 200_000))
    share = np.bincount(drawn, minlength=7) / len(drawn)
    assert share[0] == 0
    np.testing.assert_allclose(share[1:], np.exp(proposal.log_p[1:]), atol=0.004)
    np.testing.assert_allclose(np.exp(proposal.log_p[1:]).sum(), 1.0, rtol=1e-6)


def test_of_ten_million_items_all_can_be_drawn():
    counts = np.ones(10_000_001, np.int64)
    counts[0] = 0
    drawn = np.asarray(draw_items(make_proposal(counts), jax.random.key(1), 1_000_000))
    assert drawn.min() > 0
    assert drawn.max() > 9_999_000
    # As many distinct ones as chance would have it, and odd numbers as often as even ones.
    assert abs(len(np.unique(drawn)) / (1e7 * (1 - np.exp(-0.1))) - 1) < 0.01
    assert abs(np.mean(drawn % 2) - 0.5) < 0.003
