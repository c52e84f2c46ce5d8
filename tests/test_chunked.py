"""Losses made a chunk at a time against the obvious ones, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models import chunked
from semid_jax.models.full_softmax import full_softmax_loss
from semid_jax.models.rpg import digit_loss, digit_queries


def obvious(states, items, targets, weight):
    logits = (states @ items.T).at[:, 0].set(-1e9)
    own = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=1) - own) * weight)


@pytest.mark.parametrize("floats", [1, 60, 10_000])
@pytest.mark.parametrize("bearing", [0.0, 0.6, 1.0])
def test_value_and_gradient_are_those_of_the_whole_matrix(monkeypatch, floats, bearing):
    monkeypatch.setattr(chunked, "FLOATS", {"cpu": floats, "other": floats})
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


def test_gradients_of_a_tree_that_all_positions_share(monkeypatch):
    monkeypatch.setattr(chunked, "FLOATS", {"cpu": 200, "other": 200})  # several chunks
    rng = np.random.default_rng(0)
    heads, tables = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 5, 4))
    shared = jnp.asarray(heads, jnp.float32), jnp.asarray(tables, jnp.float32)
    states = jnp.asarray(rng.normal(size=(37, 4)), jnp.float32)
    fine = jnp.asarray(rng.integers(0, 5, (37, 3)), jnp.uint8)
    weight = jnp.asarray(rng.random(37) * (rng.random(37) < 0.6), jnp.float32)

    def slow(states, shared):
        queries = digit_queries(states, shared[0], 0.2)
        log_p = jax.nn.log_softmax(jnp.einsum("nld,lkd->nlk", queries, shared[1]))
        own = jnp.take_along_axis(log_p, fine[..., None].astype(jnp.int32), -1)[..., 0]
        return -jnp.sum(own.mean(axis=1) * weight)

    found = jax.value_and_grad(lambda *a: digit_loss(*a, fine, weight, 0.2), (0, 1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
        jax.jit(found)(states, shared),
        jax.value_and_grad(slow, (0, 1))(states, shared),
    )
