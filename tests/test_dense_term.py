"""S2, wherever it is computed, and what is calibrated or left out of it."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from generator_world import (
    CONFIG,
    A,
    C,
    K,
    L,
    M,
    N,
    Z,
    blank_inputs,
    code_vectors,
    make_centroids,
    make_codes,
    make_views,
    states_of,
    world,
)

from semid_jax.decode import rescoring
from semid_jax.decode.rescoring import rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.eval.calibration import CHOICES, mean_square, metrics_by_choice, weigh_likeness
from semid_jax.eval.model import Model, Tastes, dense_items, dense_query
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.users import Users, mean_metrics
from semid_jax.models.hdnag import FASTER, Generator, interests
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.train.objective import hdnag_losses
from semid_jax.train.step import Chance


@pytest.mark.parametrize("candidates", [N, 3 * N])
@pytest.mark.parametrize("dense", ["content", "free"])
def test_s2_is_s1_and_the_dense_term_wherever_it_is_computed(dense, candidates):
    rng, coarse, fine, generator, params = world(dense=dense)
    params["params"]["repeat"] = jnp.float32(-0.8 / FASTER)
    params["params"]["likeness"] = jnp.asarray([0.2, 0.5], jnp.float32) / FASTER
    params["params"]["likeness_by"] = jnp.asarray([0.6, -0.4], jnp.float32) / FASTER
    views = make_views(rng)
    items = rng.integers(1, N + 1, (4, 7)).astype(np.int32)
    items[2, 5:] = 0
    inputs, targets, archetype = items[:, :-1], items[:, 1:], np.array([0, 0, 1, 1], np.int32)
    V = np.asarray(params["params"]["dense_in"])
    u = np.asarray(params["params"]["free"]) if dense == "free" else np.zeros((N + 1, 16))
    y, z = np.zeros((A, N + 1, 16)), np.zeros((A, N + 1, Z))
    liked = np.zeros((A, N + 1, M, Z))
    items_of = code_vectors(generator, params, coarse, fine)
    for a in range(A):
        for i in range(1, N + 1):
            present = [m for m in range(M) if views.mask[i, m]]
            share = sum(float(views.archetypes.alpha[a, m]) for m in present)
            for m in present:
                part = float(views.archetypes.alpha[a, m]) / share
                liked[a, i, m] = part * views.e(i)[m]
                z[a, i] += (1 + views.archetypes.gate[a]) * part * views.h(i)[m]
        y[a] = z[a] @ V + u
        y[a, 0] = 0
    column = archetype[:, None]
    x = (items_of.x + y)[column, inputs].astype(np.float32)
    states = states_of(generator, params, x, inputs)
    interest = np.asarray(interests(z[column, inputs], 0.7), np.float32)
    s1 = np.einsum("btd,bnd->btn", states, items_of.x[archetype])
    s1 += np.einsum("btd,bnd->btn", interest, items_of.m[archetype])
    s1 += items_of.bias[archetype][:, None]
    s2 = s1 + np.einsum("btd,bnd->btn", states, y[archetype])
    tastes = np.zeros((4, 6, M, Z), np.float32)
    for b in range(4):
        for t in range(6):
            s2[b, t, sorted(set(inputs[b, : t + 1]))] -= 0.8
            fade = 0.7 ** (t - np.arange(t + 1))
            of_history = np.asarray(views.e(inputs[b, : t + 1]))
            tastes[b, t] = np.einsum("k,kmd->md", fade / fade.sum(), of_history)
            s2[b, t] += liked[archetype[b], :, 0] @ tastes[b, t, 0] * 0.6
            s2[b, t] += liked[archetype[b], :, 1] @ tastes[b, t, 1] * -0.4

    codes = make_codes(coarse, fine, views)
    batch = {
        "inputs": jnp.asarray(inputs),
        "targets": jnp.asarray(targets),
        "archetype": jnp.asarray(archetype),
        "example": jnp.arange(4, dtype=jnp.uint32),
    }
    quiet = dataclasses.replace(generator.config, dropout=0.0)
    weights = LossConfig(candidates=candidates, dense=0.7, fakes=4)
    losses = hdnag_losses(generator.clone(config=quiet), weights, 2)
    sums = losses.sums(params, codes, batch, Chance(jnp.uint32(0), jnp.int32(0)))
    bears = targets > 0
    for name, scores in (("item_loss", s1), ("dense_loss", s2)):
        own = np.take_along_axis(scores, targets[..., None], -1)[..., 0]
        expected = (np.log(np.exp(scores[..., 1:]).sum(axis=-1)) - own)[bears].sum()
        np.testing.assert_allclose(float(sums[name]), expected, rtol=1e-4)
    p = np.exp(s2[..., 1:])[bears]
    p /= p.sum(axis=-1, keepdims=True)
    cell = np.repeat(coarse[column, np.arange(1, N + 1)], bears.sum(axis=1), axis=0)
    mass = np.stack([(p * (cell == k)).sum(axis=1) for k in range(C)], axis=1)
    w = states @ np.asarray(params["params"]["codes_in"])[:16].T
    logits = w @ np.asarray(params["params"]["coarse_codes"]).T
    logits = (logits + 0.2 * interest @ np.asarray(make_centroids().coarse).T)[bears]
    log_q = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = (mass * (np.log(mass + 1e-9) - log_q)).sum()
    np.testing.assert_allclose(float(sums["alignment_loss"]), expected, rtol=1e-3)
    total = sums["item_loss"] + 0.5 * sums["alignment_loss"] + 0.05 * sums["validity_loss"]
    total += 0.7 * sums["dense_loss"]
    np.testing.assert_allclose(float(sums["item_losses"]), float(total), rtol=1e-5)

    alpha = np.asarray(views.archetypes.alpha)[archetype]
    last = inputs.astype(bool).sum(axis=1) - 1
    state, rows = states[np.arange(4), last], np.arange(4)
    asked = state, Tastes(interest[rows, last], tastes[rows, last]), alpha, archetype, inputs
    # Not in training, and so not in what was compared above.
    s2[rows, last] += 0.9 * np.einsum("bd,bnd->bn", interest[rows, last], z[archetype])
    weighed = weigh_likeness(params, 1.0, 0.9)
    model = Model(weighed, views, make_centroids(), generator)
    query = dense_query(model, *asked)
    found = np.tile(np.arange(N + 1, dtype=np.int32)[None, 1:], (4, 1))
    of_s1, of_s2 = s1[rows, last].astype(np.float32), s2[rows, last]
    before = Retrieved(jnp.asarray(found), jnp.asarray(of_s1[:, 1:]), jnp.zeros(4))
    again = rescore(dense_items(model), query, before, 5)
    best = np.argsort(-of_s2[:, 1:], axis=1)[:, :5] + 1
    np.testing.assert_array_equal(again.items, best)
    np.testing.assert_allclose(
        again.scores, np.take_along_axis(of_s2, best, axis=1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dense", ["content", "free"])
def test_a_dense_term_of_what_was_found_is_that_of_all(dense):
    rng, _, _, generator, params = world(dense=dense)
    views, users = make_views(rng), 7
    state = jnp.asarray(rng.normal(size=(users, 16)), jnp.float32)
    alpha = jnp.asarray(rng.dirichlet(np.ones(M), users), jnp.float32)
    history = jnp.ones((users, 3), jnp.int32)
    row = jnp.zeros(users, jnp.int32)
    model = Model(weigh_likeness(params, 1.0, 0.9), views, make_centroids(), generator)
    query = dense_query(model, state, make_tastes(rng, users), alpha, row, history)
    items = dense_items(model)
    found = jnp.asarray(rng.integers(1, N + 1, (users, 9)), jnp.int32)
    of_found = rescoring._scores_of_found(items, query, found)
    of_all = jnp.take_along_axis(rescoring._scores_of_all(items, query), found, axis=1)
    np.testing.assert_allclose(of_found, of_all, rtol=1e-4, atol=1e-5)


def make_tastes(rng, users):
    p, by_modality = rng.normal(size=(users, Z)), rng.normal(size=(users, M, Z))
    return Tastes(jnp.asarray(p, jnp.float32), jnp.asarray(by_modality, jnp.float32))


def test_only_a_model_that_asks_for_free_vectors_has_them():
    _, _, _, plain, of_plain = world(dense="content")
    assert "free" not in of_plain["params"]
    assert not plain.has_free


def test_likeness_is_weighed_in_one_pass_as_by_scaled_parameters():
    rng, _, _, generator, params = world(dense="free")
    params["params"]["likeness_by"] = jnp.asarray([0.6, 0.2], jnp.float32) / FASTER
    views, users = make_views(rng), 16
    items = jnp.asarray(rng.integers(1, N + 1, (users, 6)), jnp.int32)
    s1 = jnp.asarray(rng.normal(size=(users, N)), jnp.float32)
    everything = jnp.tile(jnp.arange(1, N + 1, dtype=jnp.int32), (users, 1))
    before = Retrieved(everything, s1, jnp.zeros(users))
    state = jnp.asarray(rng.normal(size=(users, 16)), jnp.float32)
    tastes = make_tastes(rng, users)
    alpha, row = views.archetypes.alpha[jnp.arange(users) % A], jnp.zeros(users, jnp.int32)
    side = Users(np.arange(users), np.asarray(items), rng.integers(1, N + 1, users))

    model = Model(params, views, make_centroids(), generator)

    def queries(factor, of_z):
        weighed = dataclasses.replace(model, params=weigh_likeness(params, factor, of_z))
        dense = dense_query(weighed, state, tastes, alpha, row, items)
        return [(types.SimpleNamespace(dense=dense), slice(0, users), users)]

    def ranks(factor, scale):
        dense = queries(factor, 0.3 * scale)[0][0].dense
        again = rescore(dense_items(model), dense, before, 5)
        return target_ranks(np.asarray(again.items), side.targets)

    asked = queries(0, 0), queries(1, 0), queries(0, 0.3)
    found = metrics_by_choice(asked, lambda _: before, dense_items(model), side, 5)
    assert found == [mean_metrics(ranks(*choice)) for choice in CHOICES]
    for which in (slice(None, 6), slice(None, None, 6)):  # of z alone, in the modalities alone
        assert len({metrics["ndcg@10"] for metrics in found[which]}) > 2
    assert CHOICES[0] == (1.0, 0.0)


def test_the_mean_square_length_of_z_leaves_out_row_0():
    points = np.asarray([[[9.0, 9.0], [3.0, 4.0]], [[9.0, 9.0], [1.0, 0.0]]], np.float32)
    assert mean_square(points) == 13.0


def test_a_term_that_is_ablated_is_zero_and_stays_there():
    config = dataclasses.replace(CONFIG, dense="free", repeats=False, likeness=0.0)
    generator = Generator(config, C, L, K, 6, N, Z, M)
    params = generator.init(jax.random.key(0), make_centroids(), *blank_inputs())
    assert "repeat" not in params["params"]

    def terms(params):
        scalars = (
            Generator.likeness,
            Generator.likeness_by,
            Generator.likeness_of_z,
            Generator.repeat,
        )
        return jnp.concatenate(
            [jnp.ravel(generator.apply(params, method=scalar)) for scalar in scalars]
        )

    assert not terms(params).any()
    slopes = jax.jacobian(terms)(params)
    assert not any(np.asarray(slope).any() for slope in jax.tree.leaves(slopes))
