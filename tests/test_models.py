"""The generator, the perceiver and dropout against slow, obvious versions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from semid_jax.decode.rescoring import rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.eval.model import dense_items, dense_query
from semid_jax.models import memory as memories
from semid_jax.models.dropout import dropout, example_seeds
from semid_jax.models.fusion import Archetypes, ItemViews
from semid_jax.models.hdnag import Generator, GeneratorConfig, item_vector, query_vector
from semid_jax.models.hdnag_losses import LossConfig, fine_loss, sample_digits
from semid_jax.parallel import Parallel
from semid_jax.train.objective import Codes, hdnag_losses
from semid_jax.train.step import TrainState, make_step
from semid_jax.types import InputError

CONFIG = GeneratorConfig(width=16, layers=1, heads=2, digit_width=4, condition_rank=3, dropout=0.1)
A, N, L, K, C, M, Z = 2, 20, 4, 8, 5, 2, 6


def world(seed=0, dense="none"):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, C, (A, N + 1)).astype(np.int32)
    fine = rng.integers(0, K, (A, N + 1, L)).astype(np.uint8)
    generator = Generator(dataclasses.replace(CONFIG, dense=dense), C, L, K, 6, N, Z)
    blank = jnp.zeros((1, 2), jnp.int32)
    params = generator.init(jax.random.key(seed), blank, jnp.zeros((1, 2, L), jnp.uint8), blank)
    # The condition starts at zero; a test of it needs it to be something.
    params["params"]["condition_up"] = jnp.asarray(rng.normal(size=(3, L, 4)), jnp.float32)
    return rng, coarse, fine, generator, params


def make_views(rng):
    """Encoded items, one without its first modality, and two archetypes."""
    mask = np.ones((N + 1, M), bool)
    mask[0], mask[3, 0] = False, False
    return ItemViews(
        jnp.asarray(rng.normal(size=(N + 1, M, Z)), jnp.float32),
        jnp.asarray(mask),
        Archetypes(
            jnp.asarray([[0.3, 0.7], [0.9, 0.1]]),
            jnp.zeros((A, Z)),
            jnp.asarray(rng.uniform(-0.5, 0.5, (A, Z)), jnp.float32),
        ),
    )


def test_s1_is_the_sum_of_the_design():
    rng, coarse, fine, generator, params = world()
    history = rng.integers(1, N + 1, (3, 6))
    _, w_s, h, weight, tables = generator.apply(
        params, coarse[0][history], fine[0][history], history
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
                params, coarse[0][items], fine[0][items], items, method=Generator.states
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


@pytest.mark.parametrize("dense", ["content", "free"])
def test_s2_is_s1_and_the_dense_term_wherever_it_is_computed(dense):
    rng, coarse, fine, generator, params = world(dense=dense)
    views = make_views(rng)
    items = rng.integers(1, N + 1, (4, 7)).astype(np.int32)
    inputs, targets, archetype = items[:, :-1], items[:, 1:], np.array([0, 0, 1, 1], np.int32)
    column = archetype[:, None]
    states, w_s, h, weight, tables = generator.apply(
        params, coarse[column, inputs], fine[column, inputs], inputs
    )
    V = np.asarray(params["params"]["dense_in"])
    u = np.asarray(params["params"]["free"]) if dense == "free" else np.zeros((N + 1, 16))
    s1 = np.zeros((4, 6, N + 1))
    y = np.zeros((A, N + 1, 16))
    for a in range(A):
        of_a = query_vector(w_s, h, weight) @ item_vector(tables, coarse[a], fine[a]).T
        s1[archetype == a] = np.asarray(of_a)[archetype == a]
        for i in range(1, N + 1):
            present = [m for m in range(M) if views.mask[i, m]]
            share = sum(float(views.archetypes.alpha[a, m]) for m in present)
            z = sum(float(views.archetypes.alpha[a, m]) / share * views.e[i, m] for m in present)
            y[a, i] = ((1 + views.archetypes.gate[a]) * z) @ V + u[i]
    s2 = s1 + np.einsum("btd,bnd->btn", states, y[archetype])

    codes = Codes(jnp.asarray(coarse), jnp.asarray(fine), jnp.zeros(N + 1), views)
    batch = {
        "inputs": jnp.asarray(inputs),
        "targets": jnp.asarray(targets),
        "archetype": jnp.asarray(archetype),
        "example": jnp.arange(4, dtype=jnp.uint32),
    }
    quiet = dataclasses.replace(generator.config, dropout=0.0)
    losses = hdnag_losses(generator.clone(config=quiet), LossConfig(candidates=N, dense=0.7), 2, 0)
    sums = losses.sums(params, codes, batch, jnp.int32(0))
    for name, scores in (("item_loss", s1), ("dense_loss", s2)):
        own = np.take_along_axis(scores, targets[..., None], -1)[..., 0]
        expected = (np.log(np.exp(scores[..., 1:]).sum(axis=-1)) - own).sum()
        np.testing.assert_allclose(float(sums[name]), expected, rtol=1e-4)
    assert losses.weights["dense_loss"] == 0.7

    kernel = params["params"]["dense_in"]
    alpha = np.asarray(views.archetypes.alpha)[archetype]
    query = dense_query(kernel, views.archetypes, states[:, -1], alpha, archetype)
    found = np.tile(np.arange(N + 1, dtype=np.int32)[None, 1:], (4, 1))
    before = Retrieved(jnp.asarray(found), jnp.asarray(s1[:, -1, 1:], jnp.float32), jnp.zeros(4))
    again = rescore(dense_items(generator, params, views), query, before, 5)
    best = np.argsort(-s2[:, -1, 1:], axis=1)[:, :5] + 1
    np.testing.assert_array_equal(again.items, best)
    np.testing.assert_allclose(
        again.scores, np.take_along_axis(s2[:, -1], best, axis=1), rtol=1e-3, atol=1e-3
    )


def test_a_history_enters_with_its_free_vectors_only_if_there_are_any():
    rng, coarse, fine, generator, params = world(dense="free")
    items = rng.integers(1, N + 1, (2, 6)).astype(np.int32)
    codes = coarse[0][items], fine[0][items]

    def states(free):
        changed = {"params": {**params["params"], "free": free}}
        return np.asarray(generator.apply(changed, *codes, items, method=Generator.states))

    free = params["params"]["free"]
    other = free.at[items[1, 3]].add(1.0)
    first = int(np.argmax(items[1] == items[1, 3]))
    np.testing.assert_array_equal(states(free)[1, :first], states(other)[1, :first])
    assert not np.allclose(states(free)[1, first:], states(other)[1, first:])
    _, _, _, plain, of_plain = world(dense="content")
    assert "free" not in of_plain["params"]
    assert not plain.has_free


def test_an_unknown_dense_term_is_refused_by_name():
    with pytest.raises(InputError, match=r"model\.dense: 'fre' is not one of none, content, free"):
        world(dense="fre")


@pytest.mark.parametrize("dense", ["none", "free"])
@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_two_devices_train_as_one(mode, dense):
    rng, coarse, fine, generator, params = world(dense=dense)
    optimiser = optax.sgd(0.1)
    step = make_step(hdnag_losses(generator, LossConfig(candidates=8, fakes=4), 2, 0), optimiser)
    codes = Codes(
        jnp.asarray(coarse), jnp.asarray(fine), jnp.log(jnp.full(N + 1, 1.0 / N)), make_views(rng)
    )
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
    codes = Codes(jnp.asarray(coarse), jnp.asarray(fine), jnp.zeros(N + 1), make_views(rng))
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
