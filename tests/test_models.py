"""The generator, the perceiver and dropout against slow, obvious versions."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from semid_jax.decode import rescoring
from semid_jax.decode.rescoring import rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Tables, item_vectors
from semid_jax.eval.calibration import FACTORS as CALIBRATED
from semid_jax.eval.calibration import metrics_by_factor, scale_likeness
from semid_jax.eval.model import dense_items, dense_query
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.users import Users, mean_metrics
from semid_jax.models import memory as memories
from semid_jax.models.dropout import dropout, example_seeds
from semid_jax.models.encoders import unit
from semid_jax.models.fusion import Archetypes, ItemViews, see
from semid_jax.models.hdnag import (
    FASTER,
    Centroids,
    Generator,
    GeneratorConfig,
    interests,
    meaning,
    query_vector,
)
from semid_jax.models.hdnag_losses import NEVER, LossConfig, fine_loss, sample_digits
from semid_jax.parallel import Parallel
from semid_jax.train.objective import Codes, hdnag_losses, sample_candidates
from semid_jax.train.step import TrainState, make_step
from semid_jax.types import InputError

CONFIG = GeneratorConfig(width=16, layers=1, heads=2, digit_width=4, condition_rank=3, dropout=0.1)
A, N, L, K, C, M, Z = 2, 20, 4, 8, 5, 2, 8


def world(seed=0, dense="none"):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, C, (A, N + 1)).astype(np.int32)
    fine = rng.integers(0, K, (A, N + 1, L)).astype(np.uint8)
    generator = Generator(dataclasses.replace(CONFIG, dense=dense), C, L, K, 6, N, Z, M)
    params = generator.init(jax.random.key(seed), make_centroids(), *blank_inputs())
    # The condition starts at zero; a test of it needs it to be something.
    params["params"]["condition_up"] = jnp.asarray(rng.normal(size=(3, L, 4)), jnp.float32)
    return rng, coarse, fine, generator, params


def make_centroids(width=Z // L):
    rng = np.random.default_rng(7)
    return Centroids(
        jnp.asarray(rng.normal(size=(C, Z)), jnp.float32),
        jnp.asarray(np.linalg.qr(rng.normal(size=(Z, Z)))[0], jnp.float32),
        jnp.asarray(rng.normal(size=(L, K, width)), jnp.float32),
    )


def blank_inputs():
    blank = jnp.zeros((1, 2), jnp.int32)
    return blank, jnp.zeros((1, 2, L), jnp.uint8), jnp.zeros((1, 2, Z))


def make_views(rng):
    """Encoded items, one without its first modality, and two archetypes."""
    mask = np.ones((N + 1, M), bool)
    mask[0], mask[3, 0] = False, False
    return ItemViews(
        jnp.asarray(rng.normal(size=(N + 1, M, Z)) * mask[..., None], jnp.float32),
        jnp.asarray(mask),
        Archetypes(
            jnp.asarray([[0.3, 0.7], [0.9, 0.1]]),
            jnp.zeros((A, Z)),
            jnp.asarray(rng.uniform(-0.5, 0.5, (A, Z)), jnp.float32),
        ),
    )


def make_codes(coarse, fine, log_proposal, views):
    column = jnp.arange(A)[:, None]
    z = see(views, column, jnp.arange(N + 1)[None])
    detail = meaning(make_centroids(), jnp.asarray(coarse), jnp.asarray(fine)).detail
    codes = jnp.asarray(coarse), jnp.asarray(fine)
    return Codes(*codes, log_proposal, views, z, detail, make_centroids())


def states_of(generator, params, vectors, items):
    return np.asarray(generator.apply(params, vectors, items > 0, method=Generator.states))


def code_vectors(generator, params, coarse, fine, centroids=None):
    codes = jnp.asarray(coarse), jnp.asarray(fine)
    asked = *codes, meaning(centroids or make_centroids(), *codes)
    return jax.tree.map(np.asarray, generator.apply(params, *asked, method=Generator.code_vectors))


@pytest.mark.parametrize("width", [Z // L, Z])
def test_s1_is_the_sum_of_the_design_and_an_inner_product_with_two_vectors_per_item(width):
    rng, coarse, fine, generator, params = world()
    centroids = make_centroids(width)
    likeness = np.array([0.7, -1.3])
    params["params"]["likeness"] = jnp.asarray(likeness / FASTER, jnp.float32)
    history = rng.integers(1, N + 1, (3, 6))
    read = code_vectors(generator, params, coarse[0][history], fine[0][history], centroids)
    states = states_of(generator, params, read.x, history)
    interest = rng.normal(size=(3, 6, Z)).astype(np.float32)
    query = generator.apply(params, centroids, states, interest, method=Generator.query)
    tables = generator.apply(params, centroids, method=Generator.tables)
    bias = generator.apply(params, coarse[0], fine[0], method=Generator.item_bias)
    of_tables = Tables(tables.coarse, tables.fine)
    found = query_vector(*query) @ item_vectors(of_tables, coarse[0], fine[0], bias).T
    items = code_vectors(generator, params, coarse[0], fine[0], centroids)
    by_vectors = states @ items.x.T + interest @ items.m.T + items.bias
    np.testing.assert_allclose(found, by_vectors, rtol=1e-3, atol=1e-3)
    p = params["params"]
    e, E = np.asarray(p["coarse_codes"]), np.asarray(unit(p["fine_codes"]))
    In, words = np.asarray(p["codes_in"]), np.asarray(centroids.fine)
    for b, t, i in ((0, 0, 1), (1, 5, 7), (2, 3, 20)):
        c, like = coarse[0, i], interest[b, t]
        score = np.dot(In[:16] @ states[b, t], e[c])
        score += likeness[0] * np.dot(like, np.asarray(centroids.coarse)[c])
        turned = like @ np.asarray(centroids.rotation)
        for j in range(L):
            f = fine[0, i, j]
            h = In[16 + 4 * j : 20 + 4 * j] @ states[b, t]
            G = np.asarray(p["condition_down"] @ p["condition_up"][:, j])
            score += np.dot(h, E[j, f]) + np.dot(e[c] @ G, E[j, f])
            part = like if width == Z else turned[2 * j : 2 * j + 2]
            score += likeness[1] * np.dot(part, words[j, f])
        np.testing.assert_allclose(found[b, t, i], score, rtol=1e-3, atol=1e-3)


def test_states_do_not_see_later_items():
    rng, coarse, fine, generator, params = world()
    history = rng.integers(1, N + 1, (2, 6))
    changed = history.copy()
    changed[:, 4] = changed[:, 4] % N + 1

    def states(items):
        read = code_vectors(generator, params, coarse[0][items], fine[0][items])
        return states_of(generator, params, read.x, items)

    before, after = states(history), states(changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_the_interest_is_a_fading_mean_of_the_items_so_far():
    z = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    found = interests(z, 0.7)
    for t in range(6):
        weight = [0.7 ** (t - k) for k in range(t + 1)]
        mean = sum(w * z[:, k] for k, w in enumerate(weight)) / sum(weight)
        np.testing.assert_allclose(found[:, t], mean, rtol=1e-4, atol=1e-5)


def test_the_fine_loss_is_a_cross_entropy_given_the_cell_and_sampling_digits_keeps_its_mean():
    rng, coarse, fine, generator, params = world()
    tables = generator.apply(params, make_centroids(), method=Generator.tables)
    h = rng.normal(size=(6, L, 6)).astype(np.float32)
    cell, codes = coarse[0, 1:7], fine[0, 1:7]
    weight = np.array([1, 1, 0, 1, 1, 1], np.float32)

    def loss(digits):
        return float(fine_loss(jnp.asarray(h), tables, cell, codes, weight, jnp.asarray(digits)))

    E, r = np.asarray(tables.fine), np.asarray(tables.condition)
    expected = 0.0
    for n in np.flatnonzero(weight):
        for j in range(L):
            logits = E[j] @ h[n, j] + E[j, :, :4] @ r[cell[n], j]
            expected += (np.log(np.exp(logits).sum()) - logits[codes[n, j]]) / L
    np.testing.assert_allclose(loss(range(L)), expected, rtol=1e-4)
    one_by_one = [loss([j]) for j in range(L)]
    np.testing.assert_allclose(np.mean(one_by_one), expected, rtol=1e-4)
    drawn = [tuple(map(int, sample_digits(jax.random.key(i), L, 2))) for i in range(40)]
    assert {j for pair in drawn for j in pair} == set(range(L))
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert list(map(int, sample_digits(jax.random.key(0), L, L + 1))) == list(range(L))


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
                liked[a, i, m] = float(views.archetypes.alpha[a, m]) / share * views.e[i, m]
            z[a, i] = (1 + views.archetypes.gate[a]) * liked[a, i].sum(axis=0)
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
            of_history = np.asarray(views.e)[inputs[b, : t + 1]]
            tastes[b, t] = np.einsum("k,kmd->md", fade / fade.sum(), of_history)
            s2[b, t] += liked[archetype[b], :, 0] @ tastes[b, t, 0] * 0.6
            s2[b, t] += liked[archetype[b], :, 1] @ tastes[b, t, 1] * -0.4

    codes = make_codes(coarse, fine, jnp.zeros(N + 1), views)
    batch = {
        "inputs": jnp.asarray(inputs),
        "targets": jnp.asarray(targets),
        "archetype": jnp.asarray(archetype),
        "example": jnp.arange(4, dtype=jnp.uint32),
    }
    quiet = dataclasses.replace(generator.config, dropout=0.0)
    weights = LossConfig(candidates=candidates, dense=0.7, fakes=4)
    losses = hdnag_losses(generator.clone(config=quiet), weights, 2, 0)
    sums = losses.sums(params, codes, batch, jnp.int32(0))
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
    asked = state, tastes[rows, last], alpha, archetype, inputs
    query = dense_query(generator, params, views.archetypes, *asked)
    found = np.tile(np.arange(N + 1, dtype=np.int32)[None, 1:], (4, 1))
    of_s1, of_s2 = s1[rows, last].astype(np.float32), s2[rows, last]
    before = Retrieved(jnp.asarray(found), jnp.asarray(of_s1[:, 1:]), jnp.zeros(4))
    again = rescore(dense_items(generator, params, views), query, before, 5)
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
    taste = jnp.asarray(rng.normal(size=(users, M, Z)), jnp.float32)
    alpha = jnp.asarray(rng.dirichlet(np.ones(M), users), jnp.float32)
    history = jnp.ones((users, 3), jnp.int32)
    row = jnp.zeros(users, jnp.int32)
    query = dense_query(generator, params, views.archetypes, state, taste, alpha, row, history)
    items = dense_items(generator, params, views)
    found = jnp.asarray(rng.integers(1, N + 1, (users, 9)), jnp.int32)
    of_found = rescoring._scores_of_found(items, query, found)
    of_all = jnp.take_along_axis(rescoring._scores_of_all(items, query), found, axis=1)
    np.testing.assert_allclose(of_found, of_all, rtol=1e-4, atol=1e-5)


def test_a_sample_of_candidates_stands_for_all_items():
    counts = np.random.default_rng(0).integers(1, 9, N)
    log_p = np.concatenate([[-np.inf], np.log(counts / counts.sum())]).astype(np.float32)
    codes = Codes(None, None, jnp.asarray(log_p), None, None, None, None)
    value = np.random.default_rng(1).uniform(size=N + 1)
    sums = []
    for seed in range(300):
        sample = sample_candidates(codes, jax.random.key(seed), N - 1)
        ids, log_count = np.asarray(sample.ids), np.asarray(sample.log_count)
        assert (np.diff(ids) >= 0).all()
        assert len(set(ids)) == (log_count < NEVER).sum()
        sums.append((value[ids] * np.exp(-log_count)).sum())
    np.testing.assert_allclose(np.mean(sums), value[1:].sum(), rtol=0.05)


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
    taste = jnp.asarray(rng.normal(size=(users, M, Z)), jnp.float32)
    alpha, row = views.archetypes.alpha[jnp.arange(users) % A], jnp.zeros(users, jnp.int32)
    side = Users(np.arange(users), np.asarray(items), rng.integers(1, N + 1, users))

    def queries(params):
        dense = dense_query(generator, params, views.archetypes, state, taste, alpha, row, items)
        return [(types.SimpleNamespace(dense=dense), slice(0, users), users)]

    def ranks(factor):
        scaled = scale_likeness(params, factor)
        dense = dense_items(generator, scaled, views)
        again = rescore(dense, queries(scaled)[0][0].dense, before, 5)
        return target_ranks(np.asarray(again.items), side.targets)

    without = queries(scale_likeness(params, 0.0))
    dense = dense_items(generator, params, views)
    found = metrics_by_factor(queries(params), without, lambda _: before, dense, side, 5)
    assert found == [mean_metrics(ranks(factor)) for factor in CALIBRATED]
    assert len({metrics["ndcg@10"] for metrics in found}) > 2


def test_a_term_that_is_ablated_is_zero_and_stays_there():
    config = dataclasses.replace(CONFIG, dense="free", repeats=False, likeness=0.0)
    generator = Generator(config, C, L, K, 6, N, Z, M)
    params = generator.init(jax.random.key(0), make_centroids(), *blank_inputs())
    assert "repeat" not in params["params"]

    def terms(params):
        scalars = (Generator.likeness, Generator.likeness_by, Generator.repeat)
        return jnp.concatenate(
            [jnp.ravel(generator.apply(params, method=scalar)) for scalar in scalars]
        )

    assert not terms(params).any()
    slopes = jax.jacobian(terms)(params)
    assert not any(np.asarray(slope).any() for slope in jax.tree.leaves(slopes))


def test_an_unknown_dense_term_is_refused_by_name():
    with pytest.raises(InputError, match=r"model\.dense: 'fre' is not one of none, content, free"):
        world(dense="fre")


def test_a_normalised_score_has_no_dense_term():
    with pytest.raises(InputError, match=r"model\.normalised: has no dense term"):
        GeneratorConfig(normalised=True, dense="free")


@pytest.mark.parametrize("dense", ["none", "free"])
@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_two_devices_train_as_one(mode, dense):
    rng, coarse, fine, generator, params = world(dense=dense)
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2, 0), optimiser)
    codes = make_codes(coarse, fine, jnp.log(jnp.full(N + 1, 1.0 / N)), make_views(rng))
    items = rng.integers(1, N + 1, (8, 7)).astype(np.int32)
    items[5, 3:] = 0  # devices with different numbers of loss-bearing positions
    archetype = np.repeat(np.array([0, 1, 1, 0], np.int32), 2)
    batch = {
        "inputs": items[:, :-1],
        "targets": items[:, 1:],
        "archetype": archetype,
        "example": np.arange(8, dtype=np.uint32),
    }
    found = []
    for kind, devices in (("pmap", jax.devices()[:1]), (mode, jax.devices()[:2])):
        parallel = Parallel(kind, devices)
        state = TrainState(jnp.int32(0), params, optimiser.init(params))
        state, metrics = parallel.compile(step)(
            parallel.replicate(state), parallel.replicate(codes), parallel.split(batch)
        )
        found.append((parallel.fetch(state).params, parallel.fetch(metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found[0][0], params)
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_train_step_lowers(platform):
    rng, coarse, fine, generator, params = world(dense="free")
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2, 0), optimiser)
    parallel = Parallel("shard_map", jax.devices()[:1])
    codes = make_codes(coarse, fine, jnp.zeros(N + 1), make_views(rng))
    items = jnp.zeros((4, 6), jnp.int32)
    batch = {
        "inputs": items,
        "targets": items,
        "archetype": jnp.zeros(4, jnp.int32),
        "example": jnp.zeros(4, jnp.uint32),
    }
    state = TrainState(jnp.int32(0), params, optimiser.init(params))
    exported = jax.export.export(parallel.compile(step), platforms=[platform])(state, codes, batch)
    assert platform in exported.platforms


def test_memories_of_prefixes_are_sums_and_coherence_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    e = rng.normal(size=(1, 7, 2, 3)).astype(np.float32)
    mean = rng.normal(size=(2, 3)).astype(np.float32)
    weight = rng.uniform(0.5, 2, (1, 7, 2)).astype(np.float32)
    mask = rng.random((1, 7, 2)) < 0.8
    long, short = memories.prefixes(memories.contribution(e, mean, weight, mask), 3)
    for t in range(7):
        for window, found in ((range(t), long), (range(max(0, t - 3), t), short)):
            for m in range(2):
                rows = [i for i in window if mask[0, i, m]]
                total = sum((e[0, i, m] - mean[m] for i in rows), np.zeros(3))
                np.testing.assert_allclose(found.total[0, t, m], total, atol=1e-4)
    rows = [i for i in range(6) if mask[0, i, 0]]
    pairs = sum(
        weight[0, j, 0] * np.dot(e[0, i, 0] - mean[0], e[0, j, 0] - mean[0])
        for i in rows
        for j in rows
        if i != j
    )
    expected = pairs / (sum(weight[0, i, 0] for i in rows) * (len(rows) - 1))
    np.testing.assert_allclose(memories.coherence(long)[0, 6, 0], expected, rtol=1e-3)


def test_dropout_follows_the_example_not_the_place():
    x = jnp.ones((4, 1000))
    seeds = example_seeds(jnp.arange(4, dtype=jnp.uint32), jnp.int32(3))
    out = dropout(x, seeds, 0.25, 1)
    assert abs(float((out == 0).mean()) - 0.25) < 0.03
    np.testing.assert_allclose(float(out.mean()), 1.0, atol=0.05)
    np.testing.assert_array_equal(dropout(x, seeds[::-1], 0.25, 1), out[::-1])
    assert not np.array_equal(out[0], out[1])
