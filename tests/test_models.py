"""S1 of the generator, its losses and its step, against slow, obvious versions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from generator_world import (
    K,
    L,
    N,
    Z,
    code_vectors,
    make_centroids,
    make_codes,
    make_views,
    states_of,
    world,
)

from semid_jax.decode.score import Tables, item_vectors
from semid_jax.models.dropout import dropout, example_seeds
from semid_jax.models.encoders import unit
from semid_jax.models.hdnag import (
    FASTER,
    Generator,
    GeneratorConfig,
    interests,
    last_interest,
    query_vector,
)
from semid_jax.models.hdnag_losses import NEVER, LossConfig, fine_loss, sample_digits
from semid_jax.models.rows import every_place, items_alone
from semid_jax.parallel import Parallel
from semid_jax.train.objective import Codes, hdnag_losses, sample_candidates
from semid_jax.train.proposal import make_proposal
from semid_jax.train.step import first_state, make_step
from semid_jax.types import InputError


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
    codes = coarse[0], fine[0], jnp.zeros(N + 1)
    bias = generator.apply(params, *codes, method=Generator.item_bias)
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


def test_a_few_items_are_read_as_many_are():
    _, coarse, fine, generator, params = world()
    many = code_vectors(generator, params, coarse[0], fine[0]).x
    assert len(many) > K > 3
    few = [code_vectors(generator, params, coarse[0, i : i + 3], fine[0, i : i + 3]).x
           for i in range(0, len(many), 3)]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(few), many, rtol=1e-5, atol=1e-6)


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


def test_what_is_made_of_the_last_item_alone_is_the_same():
    rng, coarse, fine, generator, params = world()
    history = rng.integers(1, N + 1, (3, 6))
    history[1, 2:], history[2, 5:] = 0, 0
    mask, rows, last = history > 0, np.arange(3), np.array([5, 1, 4])
    read = code_vectors(generator, params, coarse[0][history], fine[0][history])
    states = generator.apply(params, read.x, mask, method=Generator.states)
    packed = items_alone(jnp.asarray(mask), 32)  # more than there are
    for of in (every_place(jnp.asarray(mask)), packed):
        found = generator.apply(params, of.pack(read.x), of, method=Generator.last)
        np.testing.assert_allclose(found, states[rows, last], rtol=1e-4, atol=1e-5)
    z = rng.normal(size=(3, 6, 2, 3)).astype(np.float32)
    wanted = interests(z, 0.7)[rows, last]
    np.testing.assert_allclose(last_interest(z, mask, 0.7), wanted, rtol=1e-5, atol=1e-6)


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


def test_a_sample_of_candidates_stands_for_all_items():
    counts = np.random.default_rng(0).integers(0, 9, N + 1)
    counts[0] = 0
    codes = Codes(None, None, make_proposal(counts), None, None, None)
    value = np.random.default_rng(1).uniform(size=N + 1)
    sums = []
    for seed in range(300):
        sample = sample_candidates(codes, jax.random.key(seed), N - 1)
        ids, log_count = np.asarray(sample.ids), np.asarray(sample.log_count)
        assert (np.diff(ids) >= 0).all()
        assert len(set(ids)) == (log_count < NEVER).sum()
        sums.append((value[ids] * np.exp(-log_count)).sum())
    np.testing.assert_allclose(np.mean(sums), value[1:].sum(), rtol=0.05)


def test_an_unknown_dense_term_is_refused_by_name():
    with pytest.raises(InputError, match=r"model\.dense: 'fre' is not one of none, content, free"):
        world(dense="fre")


def test_a_normalised_score_has_no_dense_term():
    with pytest.raises(InputError, match=r"model\.normalised: has no dense term"):
        GeneratorConfig(normalised=True, dense="free")


@pytest.mark.parametrize(
    ("mode", "dense"),
    [
        ("pmap", "free"),
        ("shard_map", "none"),
        pytest.param("pmap", "none", marks=pytest.mark.slow),
        pytest.param("shard_map", "free", marks=pytest.mark.slow),
    ],
)
def test_two_devices_train_as_one(mode, dense):
    rng, coarse, fine, generator, params = world(dense=dense)
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2), optimiser)
    codes = make_codes(coarse, fine, make_views(rng))
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
        state = first_state(params, optimiser, 0)
        state, metrics = parallel.compile(step)(
            parallel.replicate(state), parallel.share(codes), parallel.split(batch)
        )
        found.append((parallel.fetch(state).params, parallel.fetch(metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found[0][0], params)
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_train_step_lowers(platform):
    rng, coarse, fine, generator, params = world(dense="free")
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2), optimiser)
    parallel = Parallel("shard_map", jax.devices()[:1])
    codes = make_codes(coarse, fine, make_views(rng))
    items = jnp.zeros((4, 6), jnp.int32)
    batch = {
        "inputs": items,
        "targets": items,
        "archetype": jnp.zeros(4, jnp.int32),
        "example": jnp.zeros(4, jnp.uint32),
    }
    state = first_state(params, optimiser, 0)
    exported = jax.export.export(parallel.compile(step), platforms=[platform])(state, codes, batch)
    assert platform in exported.platforms


def test_a_seed_is_an_argument_of_the_compiled_step():
    rng, coarse, fine, generator, params = world(dense="none")
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2), optimiser)
    traced = []

    def watched(*arguments):
        traced.append(len(traced))
        return step(*arguments)

    compiled = Parallel("pmap", jax.devices()[:1]).compile(watched)
    codes = make_codes(coarse, fine, make_views(rng))
    items = rng.integers(1, N + 1, (1, 4, 7)).astype(np.int32)
    batch = {
        "inputs": items[..., :-1],
        "targets": items[..., 1:],
        "archetype": np.zeros((1, 4), np.int32),
        "example": np.arange(4, dtype=np.uint32)[None],
    }
    losses, traces = [], []
    for seed in (0, 1, 0):
        state = jax.tree.map(lambda a: jnp.asarray(a)[None], first_state(params, optimiser, seed))
        losses.append(float(compiled(state, codes, batch)[1]["item_loss"][0]))
        traces.append(len(traced))
    assert losses[0] == losses[2] != losses[1]
    assert traces[0] == traces[2] > 0


def test_dropout_follows_the_example_not_the_place():
    x = jnp.ones((4, 1000))
    seeds = example_seeds(jnp.arange(4, dtype=jnp.uint32), jnp.int32(3))
    out = dropout(x, seeds, 0.25, 1)
    assert abs(float((out == 0).mean()) - 0.25) < 0.03
    np.testing.assert_allclose(float(out.mean()), 1.0, atol=0.05)
    np.testing.assert_array_equal(dropout(x, seeds[::-1], 0.25, 1), out[::-1])
    assert not np.array_equal(out[0], out[1])
