"""What is said of the coarse head, worked out by hand."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.eval.coarse import coarse_metrics


def test_recall_and_entropy_of_two_heads():
    weight = 2.0
    p = np.array([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]])
    queries = [
        (types.SimpleNamespace(coarse=jnp.asarray(weight * np.log(row)[None])), slice(b, b + 1), 1)
        for b, row in enumerate(p)
    ]
    side = types.SimpleNamespace(archetype=np.zeros(2, int), targets=np.array([1, 2]))
    coarse = np.array([[0, 2, 3]])  # the first user's target lies in the third best cell
    entropy = [np.log(2) * (0.5 + 0.5 + 0.75), np.log(4)]
    for probes, recall in ((1, 0.5), (2, 0.5), (3, 1.0)):
        found = coarse_metrics(queries, side, coarse, weight, probes)
        assert found == {
            "coarse_recall": recall,
            "coarse_entropy": pytest.approx(np.mean(entropy), rel=1e-5),
        }
