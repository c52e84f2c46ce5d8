"""The generator, the perceiver and dropout against slow, obvious versions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from semid_jax.models import memory as memories
from semid_jax.models.dropout import dropout, example_seeds
from semid_jax.models.hdnag import Generator, GeneratorConfig, item_vector, query_vector
from semid_jax.models.hdnag_losses import LossConfig, fine_loss, sample_digits
from semid_jax.parallel import Parallel
from semid_jax.train.objective import Codes, hdnag_losses
from semid_jax.train.step import TrainState, make_step

CONFIG = GeneratorConfig(width=16, layers=1, heads=2, digit_width=4, condition_rank=3, dropout=0.1)
A, N, L, K, C = 2, 20, 4, 8, 5


def world(seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, C, (A, N + 1)).astype(np.int32)
    fine = rng.integers(0, K, (A, N + 1, L)).astype(np.uint8)
    generator = Generator(CONFIG, C, L, K, 6)
    blank = jnp.zeros((1, 2), jnp.int32)
    params = generator.init(jax.random.key(seed), blank, jnp.zeros((1, 2, L), jnp.uint8), blank > 0)
    # The condition starts at zero; a test of it needs it to be something.
    params["params"]["condition_up"] = jnp.asarray(rng.normal(size=(3, L, 4)), jnp.float32)
    return rng, coarse, fine, generator, params


def test_s1_is_the_sum_of_the_design():
    rng, coarse, fine, generator, params = world()
    history = rng.integers(1, N + 1, (3, 6))
    w_s, h, weight, tables = generator.apply(
        params, coarse[0][history], fine[0][history], history > 0
    )
    found = query_vector(w_s, h, weight) @ item_vector(tables, coarse[0], fine[0]).T
    e, E = np.asarray(tables.coarse), np.asarray(tables.fine)
    p = params["params"]
    for b, t, i in ((0, 0, 1), (1, 5, 7), (2, 3, 20)):
        c = coarse[0, i]
        score = float(weight) * np.dot(w_s[b, t], e[c])
        for j in range(L):
            f = fine[0, i, j]
            G = np.asarray(p["condition_down"] @ p["condition_up"][:, j])
            score += np.dot(h[b, t, j], E[j, f]) + np.dot(e[c] @ G, E[j, f])
        np.testing.assert_allclose(found[b, t, i], score, rtol=1e-4, atol=1e-4)


def test_states_do_not_see_later_items():
    rng, coarse, fine, generator, params = world()
    history = rng.integers(1, N + 1, (2, 6))
    changed = history.copy()
    changed[:, 4] = changed[:, 4] % N + 1

    def states(items):
        return np.asarray(
            generator.apply(
                params, coarse[0][items], fine[0][items], items > 0, method=Generator.states
            )
        )

    before, after = states(history), states(changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_the_fine_loss_is_a_cross_entropy_given_the_cell_and_sampling_digits_keeps_its_mean():
    rng, coarse, fine, generator, params = world()
    tables = generator.apply(params, method=Generator.tables)
    h = rng.normal(size=(6, L, 4)).astype(np.float32)
    cell, codes = coarse[0, 1:7], fine[0, 1:7]
    weight = np.array([1, 1, 0, 1, 1, 1], np.float32)

    def loss(digits):
        return float(fine_loss(jnp.asarray(h), tables, cell, codes, weight, jnp.asarray(digits)))

    E, r = np.asarray(tables.fine), np.asarray(tables.condition)
    expected = 0.0
    for n in np.flatnonzero(weight):
        for j in range(L):
            logits = E[j] @ (h[n, j] + r[cell[n], j])
            expected += (np.log(np.exp(logits).sum()) - logits[codes[n, j]]) / L
    np.testing.assert_allclose(loss(range(L)), expected, rtol=1e-4)
    one_by_one = [loss([j]) for j in range(L)]
    np.testing.assert_allclose(np.mean(one_by_one), expected, rtol=1e-4)
    drawn = [tuple(map(int, sample_digits(jax.random.key(i), L, 2))) for i in range(40)]
    assert {j for pair in drawn for j in pair} == set(range(L))
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert list(map(int, sample_digits(jax.random.key(0), L, L + 1))) == list(range(L))


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_two_devices_train_as_one(mode):
    rng, coarse, fine, generator, params = world()
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2, 0), optimiser)
    codes = Codes(jnp.asarray(coarse), jnp.asarray(fine), jnp.log(jnp.full(N + 1, 1.0 / N)))
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
    _, coarse, fine, generator, params = world()
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2, 0), optimiser)
    parallel = Parallel("shard_map", jax.devices()[:1])
    codes = Codes(jnp.asarray(coarse), jnp.asarray(fine), jnp.zeros(N + 1))
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
