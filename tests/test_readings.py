"""What PMAT says of users: causal, equal to a loop over prefixes, the same in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.models import memory as memories
from semid_jax.models.fusion import Archetypes
from semid_jax.models.memory import Memory
from semid_jax.models.pmat import Pmat, PmatConfig, Population
from semid_jax.train import readings as reading
from semid_jax.train.tokenizer import freeze, make_module
from semid_jax.types import Interactions, ItemFeatures

N, W = 30, 4
CONFIG = PmatConfig(width=8, hidden=8, archetypes=2, window=W)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(N + 1, d)).astype(np.float32) for name, d in (("a", 5), ("b", 3))}
    present = {name: rng.random(N + 1) < 0.8 for name in x}
    for name in x:
        present[name][0] = False
        x[name] *= present[name][:, None]
    features = ItemFeatures(x, present)
    module = make_module(features, CONFIG)
    zeros = jnp.zeros((1, 2, 8))
    blank = Memory(zeros, zeros[..., 0], zeros, zeros[..., 0], zeros[..., 0])
    crowd = Population(jnp.zeros((2, 8)), jnp.ones(2))
    params = module.init(
        jax.random.key(1),
        {name: x[name][:1] for name in x},
        blank,
        crowd,
        method=Pmat.initialise,
    )
    counts = np.ones(N + 1, np.int64)
    counts[0] = 0
    frozen = freeze(module, params, features, counts)
    archetypes = Archetypes(
        jnp.asarray([[0.2, 0.8], [0.8, 0.2]]),
        jnp.asarray(rng.normal(size=(2, 8)), jnp.float32),
        jnp.ones((2, 8)),
    )
    lengths = np.array([3, 12, 40, 7])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, N + 1, offsets[-1]).astype(np.int32)
    interactions = Interactions(np.arange(4).astype(str), items, offsets, None, N)
    return module, frozen, archetypes, interactions


def read(world, items=None):
    module, frozen, archetypes, interactions = world
    if items is not None:
        interactions = Interactions(
            interactions.user_ids, items, interactions.offsets, None, interactions.n_items
        )
    end = interactions.lengths.astype(np.int64) - 2
    return reading.read_all(module, frozen, archetypes, interactions, end)


def test_a_later_item_changes_nothing_at_or_before_its_place(world):
    interactions = world[-1]
    start = int(interactions.offsets[2])
    place = start + 17
    changed = interactions.items.copy()
    changed[place] = changed[place] % N + 1
    before, after = read(world), read(world, changed)
    later = slice(place + 1, int(interactions.offsets[3]))
    for name in ("alpha", "alpha_short", "drift", "archetype", "archetype_short"):
        old, new = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(old[: place + 1], new[: place + 1], err_msg=name)
        np.testing.assert_array_equal(old[later.stop :], new[later.stop :], err_msg=name)
    assert np.abs(before.alpha[later] - after.alpha[later]).max() > 1e-6
    # The short-term memory forgets the item after W steps.
    np.testing.assert_allclose(
        before.alpha_short[place + W + 1 : later.stop],
        after.alpha_short[place + W + 1 : later.stop],
        atol=1e-4,
    )


def test_readings_agree_with_prefixes_read_one_by_one(world):
    module, frozen, _, interactions = world
    found = read(world)

    def preference(items):
        at = jnp.asarray(items, jnp.int32)
        centred = (frozen.e[at] - frozen.population.mean) * frozen.mask[at][..., None]
        weight = frozen.attention[at] * frozen.mask[at]
        memory = Memory(
            weighted=jnp.sum(centred * weight[..., None], axis=0),
            weight=jnp.sum(weight, axis=0),
            total=jnp.sum(centred, axis=0),
            own=jnp.sum(weight * jnp.sum(centred**2, axis=-1), axis=0),
            count=jnp.sum(frozen.mask[at], axis=0).astype(jnp.float32),
        )
        return module.apply(frozen.params, memory, frozen.population, method=Pmat.preference)

    for user, t in ((0, 0), (1, 1), (1, 11), (2, 25)):
        start = int(interactions.offsets[user])
        history = interactions.items[start : start + t]
        long, short = preference(history), preference(history[-W:])
        np.testing.assert_allclose(found.alpha[start + t], long.alpha, atol=2e-4)
        np.testing.assert_allclose(found.alpha_short[start + t], short.alpha, atol=2e-4)
        p, q = (np.asarray(a.alpha, float) + 1e-12 for a in (long, short))
        m = (p + q) / 2
        divergence = (p * np.log2(p / m) + q * np.log2(q / m)).sum() / 2
        np.testing.assert_allclose(
            found.drift[start + t, 0], np.sqrt(max(divergence, 0)), atol=2e-3
        )


def test_users_are_read_the_same_in_any_batch(world, monkeypatch):
    whole = read(world)
    monkeypatch.setattr(reading, "POSITIONS", 64)
    small = read(world)
    np.testing.assert_allclose(whole.alpha, small.alpha, atol=1e-6)
    np.testing.assert_allclose(whole.interest, small.interest, atol=1e-6)
    np.testing.assert_array_equal(whole.archetype, small.archetype)


def test_drift_is_judged_only_with_a_full_window_and_as_much_before():
    np.testing.assert_array_equal(reading.can_drift(np.arange(10), W), np.arange(10) >= 2 * W)


def test_jensen_shannon_by_hand():
    p, q = jnp.asarray([[1.0, 0.0], [0.5, 0.5]]), jnp.asarray([[0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_allclose(reading.jensen_shannon(p, q), [1.0, 0.0], atol=1e-4)


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
