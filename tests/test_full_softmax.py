"""The chunked full softmax against the obvious one, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models import full_softmax
from semid_jax.models.full_softmax import full_softmax_loss


def obvious(states, items, targets, weight):
    logits = (states @ items.T).at[:, 0].set(-1e9)
    own = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=1) - own) * weight)


@pytest.mark.parametrize("scores", [1, 60, 10_000])
@pytest.mark.parametrize("bearing", [0.0, 0.6, 1.0])
def test_value_and_gradient_are_those_of_the_whole_matrix(monkeypatch, scores, bearing):
    monkeypatch.setattr(full_softmax, "SCORES", {"cpu": scores, "other": scores})
    rng = np.random.default_rng(0)
    states = jnp.asarray(3 * rng.normal(size=(37, 8)), jnp.float32)
    items = jnp.asarray(rng.normal(size=(14, 8)), jnp.float32)
    weight = np.where(rng.random(37) < bearing, rng.random(37), 0).astype(np.float32)
    targets = np.where(weight > 0, rng.integers(1, 14, 37), 0).astype(np.int32)
    targets, weight = jnp.asarray(targets), jnp.asarray(weight)
    found = jax.value_and_grad(lambda s, i: 2.5 * full_softmax_loss(s, i, targets, weight), (0, 1))
    slow = jax.value_and_grad(lambda s, i: 2.5 * obvious(s, i, targets, weight), (0, 1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
        jax.jit(found)(states, items),
        slow(states, items),
    )
