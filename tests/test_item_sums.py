"""The item-level losses and their gradients against the same written plainly and differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models.codes import CodeVectors
from semid_jax.models.hdnag_losses import (
    NEVER,
    Asked,
    Candidates,
    Dense,
    Fixed,
    Known,
    LossConfig,
    Past,
    item_losses,
)
from semid_jax.models.rounding import product_dtype
from semid_jax.types import InputError

n, S, D, Z, C, T, M, V = 70, 100, 8, 6, 5, 4, 2, 3


def made(sampled, seed=0):
    """All arguments of `item_losses` but the configuration, as numbers that nothing else made."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) * 0.5, jnp.float32)

    def codes(count):
        return CodeVectors(normal(count, D), normal(count, Z), normal(count))

    ids = np.sort(rng.integers(1, 2 * S, S)) if sampled else np.arange(1, S + 1)
    first = np.append(True, ids[1:] != ids[:-1])
    log_count = np.where(first, rng.normal(size=S) * sampled, NEVER)
    fixed = Fixed(
        Candidates(jnp.asarray(ids), jnp.asarray(log_count, jnp.float32)),
        jax.nn.one_hot(rng.integers(0, C, S), C),
        normal(S, M, Z),
    )
    dense = Dense(normal(S, D), normal(M), jnp.float32(-0.7))
    history = rng.integers(0, 2 * S, (n, T))
    history[:, 1:] *= history[:, 1:] != history[:, :1]
    history[:, 2:] *= history[:, 2:] != history[:, 1:2]
    history[:, 3:] *= history[:, 3:] != history[:, 2:3]
    history[:, 3] *= history[:, 3] != history[:, 1]
    target = rng.integers(1, 2 * S, n)
    target[:10] = history[:10, 0]
    past = Past(normal(n, M, Z), normal(n, M), jnp.asarray(history))
    asked = Asked(normal(n, D), codes(n), normal(n, C), normal(n, D))
    cell = jnp.asarray(rng.integers(0, C, n))
    known = Known(jnp.asarray(target), cell, normal(n, Z), past)
    weight = jnp.asarray(rng.random(n) * (rng.random(n) > 0.2), jnp.float32)
    return fixed, codes(S), codes(V), dense, asked, known, weight


def plainly(config, fixed, vectors, fakes, dense, asked, known, weight):
    def scores(codes):
        return asked.states @ codes.x.T + known.interest @ codes.m.T + codes.bias

    def cross_entropy(scores, own):
        hit = known.target[:, None] == fixed.candidates.ids
        scores = jnp.where(hit, -NEVER, scores - fixed.candidates.log_count)
        total = jnp.logaddexp(own, jax.nn.logsumexp(scores, axis=1))
        return total - own, total, scores

    own = (asked.states * asked.own.x).sum(1) + (known.interest * asked.own.m).sum(1)
    own = own + asked.own.bias
    s = scores(vectors)
    loss, total, ranks = cross_entropy(s, own)
    parts = {"item_loss": loss}
    parts["validity_loss"] = jax.nn.softplus(jax.nn.logsumexp(scores(fakes), axis=1) - total)
    last = loss
    if dense is not None:
        past = known.past
        own = own + (asked.states * asked.own_y).sum(1) + past.own_likeness @ dense.likeness_by
        own = own + dense.repeat * (past.history == known.target[:, None]).any(1)
        s = s + asked.states @ dense.y.T
        s = s + jnp.einsum("m,nmd,smd->ns", dense.likeness_by, past.taste, fixed.e)
        again = (past.history[:, :, None] == fixed.candidates.ids).any(1)
        last, total, ranks = cross_entropy(s + dense.repeat * again, own)
        parts["dense_loss"] = last
    mass = jnp.exp(ranks - total[:, None]) @ fixed.masses
    mass = mass.at[jnp.arange(n), known.cell].add(jnp.exp(-last))
    mass = jax.lax.stop_gradient(mass)
    log_q = jax.nn.log_softmax(asked.coarse_logits)
    parts["alignment_loss"] = (mass * (jnp.log(mass + 1e-9) - log_q)).sum(1)
    weights = {
        "item_loss": config.item,
        "validity_loss": config.validity,
        "dense_loss": config.dense,
        "alignment_loss": config.alignment,
    }
    sums = {name: (value * weight).sum() for name, value in parts.items()}
    return sum(weights[name] * value for name, value in sums.items()), sums


def with_gradients(losses, config, fixed, vectors, fakes, dense, asked, known, weight):
    def of(vectors, fakes, dense, asked):
        return losses(config, fixed, vectors, fakes, dense, asked, known, weight)

    return jax.jit(jax.value_and_grad(of, (0, 1, 2, 3), has_aux=True))(vectors, fakes, dense, asked)


def without_dense(fixed, vectors, fakes, dense, asked, known, weight):
    fixed = dataclasses.replace(fixed, e=None)
    asked = dataclasses.replace(asked, own_y=None)
    return fixed, vectors, fakes, None, asked, dataclasses.replace(known, past=None), weight


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("has_dense", [False, True])
def test_losses_and_gradients_are_those_of_the_plain_form(has_dense, sampled, monkeypatch):
    monkeypatch.setattr("semid_jax.models.chunked.FLOATS", {"cpu": 32 * 171, "other": 32 * 171})
    arguments = made(sampled) if has_dense else without_dense(*made(sampled))
    config = LossConfig(item=0.8, dense=0.7, validity=0.3)
    ours = with_gradients(item_losses, config, *arguments)
    plain = with_gradients(plainly, config, *arguments)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_rounded_products_change_little():
    arguments = made(False)
    ours = with_gradients(item_losses, LossConfig(products="bfloat16"), *arguments)
    plain = with_gradients(plainly, LossConfig(), *arguments)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert np.linalg.norm(a - b) <= 0.01 * np.linalg.norm(b)


def test_a_target_far_below_the_rest_has_a_finite_loss_and_gradient():
    fixed, vectors, fakes, dense, asked, known, _ = made(False)
    own = dataclasses.replace(asked.own, bias=asked.own.bias - 500.0)
    asked = dataclasses.replace(asked, own=own)
    arguments = fixed, vectors, fakes, dense, asked, known, jnp.ones(n)
    (loss, sums), gradients = with_gradients(item_losses, LossConfig(), *arguments)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradients)))
    assert float(sums["item_loss"]) / n > 70
    np.testing.assert_allclose(gradients[3].own.bias.mean(), -2.0, rtol=0.1)


def test_an_unknown_type_of_products_is_refused():
    with pytest.raises(InputError, match=r"loss.products: 'half' is not one of float32"):
        product_dtype("half")
    assert product_dtype("auto") in (jnp.float32, jnp.bfloat16)
