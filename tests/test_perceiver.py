"""The posterior of weights and tastes against sums over all of them, one by one."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from perceiver_world import D, K, M, choose, make_items, make_latents, make_perceiver
from scipy.special import logsumexp

from semid_jax.models.memory import Memory, sum_before
from semid_jax.models.perceiver import (
    drift_evidence,
    evidence,
    first_prior,
    item_gains,
    log_likelihood,
    over_users,
    plain_evidence,
    posterior,
    read_items,
    simplex,
)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 6])
def test_the_grid_is_even_on_the_simplex_and_small(modalities):
    grid, level, levels = simplex(modalities)
    assert 1 <= len(grid) <= 66
    np.testing.assert_allclose(grid.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(grid, (level + 1 / modalities) / levels, rtol=1e-6)
    np.testing.assert_allclose(grid.mean(axis=0), 1 / modalities, rtol=1e-5)
    assert len({tuple(row) for row in level}) == len(grid)
    assert level.max() == levels - 1


def memory_of(perceiver, items):
    """Sums over items, one by one."""
    items = [int(i) for i in items]
    return Memory(
        sum((perceiver.readings[i] for i in items), jnp.zeros((M, K))),
        sum((perceiver.mask[i].astype(jnp.float32) for i in items), jnp.zeros(M)),
    )


def without_cross(perceiver):
    latents = perceiver.latents.replace(cross=jnp.zeros((M, K, M, K)))
    return perceiver.replace(latents=latents)


def enumerate_states(latents, memory):
    """(point of the grid, tastes) -> log prior, log-likelihood of the memory."""
    grid, level, _ = simplex(M)
    for g in range(len(grid)):
        for tastes in itertools.product(range(K), repeat=M):
            prior = float(latents.log_weights[g])
            likely = 0.0
            for m, k in enumerate(tastes):
                s = level[g, m]
                prior += float(latents.log_tastes[m, k])
                likely += float(latents.strength[s] * memory.sums[m, k])
                likely -= float(memory.count[m] * latents.log_z[s, m, k])
            yield g, tastes, prior, likely


def test_the_crowd_normalises_tastes_and_choices():
    rng = np.random.default_rng(0)
    e, mask = make_items(rng)
    log_weight = rng.normal(size=len(e) - 1)
    latents = make_latents(rng, e, mask, strength=2.0, log_weight=log_weight)
    readings = np.asarray(read_items(latents, e, mask), float)[1:]
    np.testing.assert_allclose(latents.strength, 2.0 * (np.arange(12) + 0.5) / 12, rtol=1e-5)
    weights = np.exp(log_weight)
    for m in range(M):
        has = mask[1:, m]
        share = weights[has] / weights[has].sum()
        np.testing.assert_allclose(share @ readings[has, m], 0, atol=1e-5)
        np.testing.assert_allclose(share @ readings[has, m] ** 2, 1, rtol=1e-4)
        for s, k in ((0, 0), (5, 1), (11, 2)):
            z = share @ np.exp(float(latents.strength[s]) * readings[has, m, k])
            np.testing.assert_allclose(latents.log_z[s, m, k], np.log(z), rtol=1e-4, atol=1e-5)
    share = weights / weights.sum()
    np.testing.assert_allclose(
        latents.cross[0, 1, 1, 2], share @ (readings[:, 0, 1] * readings[:, 1, 2]), rtol=1e-4
    )
    np.testing.assert_array_equal(latents.cross[0, :, 0], 0)


def test_the_posterior_is_that_of_all_weights_and_tastes_tried():
    perceiver = without_cross(make_perceiver())
    latents = perceiver.latents
    memory = memory_of(perceiver, [3, 3, 8, 21, 30])
    log_p, constant = evidence(latents, first_prior(latents), memory)
    found = posterior(latents, first_prior(latents), log_p)
    grid, level, _ = simplex(M)
    alpha, query, total = np.zeros(M), np.zeros((M, D)), []
    states = list(enumerate_states(latents, memory))
    total = logsumexp([prior + likely for *_, prior, likely in states])
    for g, tastes, prior, likely in states:
        p = np.exp(prior + likely - total)
        alpha += p * grid[g]
        for m, k in enumerate(tastes):
            query[m] += p * float(latents.strength[level[g, m]]) * np.asarray(latents.taste[m, k])
    np.testing.assert_allclose(found.alpha, alpha, rtol=1e-4)
    np.testing.assert_allclose(found.query, query, rtol=1e-3, atol=1e-4)
    unit = query / np.sqrt((query**2).sum(axis=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(found.interest, alpha @ unit, rtol=1e-3, atol=1e-4)
    likely = log_likelihood(first_prior(latents), log_p, constant)
    np.testing.assert_allclose(likely, total, rtol=1e-4, atol=1e-4)


def test_drift_is_weighed_as_all_weights_and_tastes_before_and_after_say():
    perceiver = without_cross(make_perceiver())
    latents = perceiver.latents
    before, recent = (memory_of(perceiver, items) for items in ([3, 8, 8, 21], [30, 2, 2, 17]))
    found, old, new = drift_evidence(latents, first_prior(latents), before, recent)
    a, b = (list(enumerate_states(latents, memory)) for memory in (before, recent))
    same = logsumexp([p + la + lb for (_, _, p, la), (_, _, _, lb) in zip(a, b, strict=True)])
    grid = simplex(M)[0]

    def both(shared):
        """Sum over pairs of states that share weights ("g") or tastes ("k")."""
        parts = []
        for g, k, prior, la in a:
            for h, j, other, lb in b:
                if shared == "g" and g == h:
                    parts.append(prior + other - float(latents.log_weights[g]) + la + lb)
                if shared == "k" and k == j:
                    tastes = sum(float(latents.log_tastes[m, k[m]]) for m in range(M))
                    parts.append(prior + other - tastes + la + lb)
        return logsumexp(parts)

    np.testing.assert_allclose(found, [both("k") - same, both("g") - same], atol=2e-3)
    assert len(grid) == 12
    np.testing.assert_allclose(old, plain_evidence(latents, before), atol=1e-4)
    np.testing.assert_allclose(new, plain_evidence(latents, recent), atol=1e-4)


def test_one_modality_is_not_credited_with_what_the_other_explains():
    """Items are alike in both modalities; the exact normaliser of choices says what is right."""
    rng = np.random.default_rng(3)
    e, mask = make_items(rng, n=400, missing=0.0)
    e[:, 1] = 0.6 * e[:, 0] + 0.8 * e[:, 1]
    taste = np.stack([rng.normal(size=(K, D))] * 2)
    latents = make_latents(rng, e, mask, strength=1.5, taste=taste)
    latents = latents.replace(log_weights=jnp.full(12, -np.log(12)))
    readings = np.asarray(read_items(latents, e, mask), float)[1:]
    scores = 1.5 * readings[:, 0, 1]  # weights (1, 0), taste 1 in the first
    p = np.exp(scores - logsumexp(scores))
    n = 30
    memory = Memory(jnp.asarray(n * np.einsum("n,nmk->mk", p, readings)), jnp.full(M, float(n)))
    plain = posterior(latents, first_prior(latents), plain_evidence(latents, memory))
    log_p, _ = evidence(latents, first_prior(latents), memory)
    mended = posterior(latents, first_prior(latents), log_p)
    grid, level, _ = simplex(M)
    exact = []
    for g in range(12):
        for j, k in itertools.product(range(K), repeat=2):
            of = (float(latents.strength[level[g, m]]) for m in range(M))
            s = sum(strength * readings[:, m, t] for m, (strength, t) in
                    enumerate(zip(of, (j, k), strict=True)))  # fmt: skip
            prior = float(latents.log_tastes[0, j] + latents.log_tastes[1, k])
            exact.append((g, prior + n * (p @ s) - n * (logsumexp(s) - np.log(400))))
    weights = np.exp([x - logsumexp([y for _, y in exact]) for _, x in exact])
    alpha = weights @ grid[[g for g, _ in exact]]
    assert abs(mended.alpha[0] - alpha[0]) < 0.4 * abs(plain.alpha[0] - alpha[0])


def test_size_and_order_of_modalities_change_nothing():
    rng = np.random.default_rng(1)
    e, mask = make_items(rng)
    taste = rng.normal(size=(M, K, D))
    items = rng.integers(1, len(e), 12)

    def read(e, mask, taste, log_tastes):
        latents = make_latents(np.random.default_rng(0), e, mask, taste=taste)
        latents = dataclasses.replace(
            latents, log_weights=jnp.full(12, -np.log(12)), log_tastes=jnp.asarray(log_tastes)
        )
        readings = read_items(latents, e, mask)[items]
        memory = Memory(jnp.sum(readings, axis=0), jnp.sum(mask[items], axis=0) * 1.0)
        prior = first_prior(latents)
        return np.asarray(posterior(latents, prior, evidence(latents, prior, memory)[0]).alpha)

    log_tastes = np.log(rng.dirichlet(np.ones(K), M)).astype(np.float32)
    plain = read(e, mask, taste, log_tastes)
    scaled = e * np.array([1.0, 7.0], np.float32)[:, None]
    np.testing.assert_allclose(read(scaled, mask, taste, log_tastes), plain, atol=1e-5)
    swapped = read(e[:, ::-1], mask[:, ::-1], taste[::-1], log_tastes[::-1])
    np.testing.assert_allclose(swapped[::-1], plain, atol=1e-5)


def test_nothing_known_is_the_crowd_and_an_absent_modality_says_nothing():
    perceiver = make_perceiver()
    latents = perceiver.latents
    prior = first_prior(latents)
    nothing = Memory(jnp.zeros((M, K)), jnp.zeros(M))
    alpha = posterior(latents, prior, evidence(latents, prior, nothing)[0]).alpha
    np.testing.assert_allclose(alpha, np.exp(latents.log_weights) @ simplex(M)[0], rtol=1e-4)
    one = memory_of(perceiver, [5, 9, 9])
    only = Memory(one.sums.at[1].set(0.0), one.count.at[1].set(0.0))
    log_p, _ = evidence(latents, prior, only)
    np.testing.assert_allclose(np.ptp(np.asarray(log_p)[:, 1]), 0, atol=1e-6)


def test_gains_tell_items_of_the_new_taste_from_those_of_the_old():
    perceiver = make_perceiver(strength=4.0, missing=0.0)
    latents, prior = perceiver.latents, first_prior(perceiver.latents)
    rng = np.random.default_rng(5)
    old_items = choose(rng, perceiver, [0.9, 0.1], [0, 0], 30)
    new_items = choose(rng, perceiver, [0.9, 0.1], [2, 1], 30)
    beliefs = [
        (prior, evidence(latents, prior, memory_of(perceiver, items))[0])
        for items in (old_items, new_items)
    ]
    both = np.concatenate([old_items[:10], new_items[:10]])
    items = Memory(perceiver.readings[both], perceiver.mask[both].astype(jnp.float32))
    gains = np.asarray(item_gains(latents, *beliefs, items))
    assert gains[:10].mean() < -0.5 < 0.5 < gains[10:].mean()


def test_many_users_are_one_by_one():
    perceiver = make_perceiver()
    latents, prior = perceiver.latents, first_prior(perceiver.latents)
    histories = [[3, 8], [5, 5, 9], [1]]
    memories = [memory_of(perceiver, items) for items in histories]
    many = Memory(jnp.stack([m.sums for m in memories]), jnp.stack([m.count for m in memories]))
    read = lambda memory: posterior(latents, prior, evidence(latents, prior, memory)[0])  # noqa: E731
    found = over_users(read)(many)
    for u, memory in enumerate(memories):
        np.testing.assert_allclose(found.alpha[u], read(memory).alpha, rtol=1e-5)
        np.testing.assert_allclose(found.query[u], read(memory).query, rtol=1e-4, atol=1e-5)


def test_memories_before_positions_are_sums():
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(2, 7, M, K)).astype(np.float32)
    count = (rng.random((2, 7, M)) < 0.8).astype(np.float32)
    position = np.array([[0, 2, 3, 7], [6, 1, 6, 5]])
    long, short = sum_before(Memory(sums, count), position, 3)
    for (b, p), t in np.ndenumerate(position):
        for window, found in ((range(t), long), (range(max(0, t - 3), t), short)):
            rows = list(window)
            np.testing.assert_allclose(found.sums[b, p], sums[b, rows].sum(axis=0), atol=1e-5)
            np.testing.assert_allclose(found.count[b, p], count[b, rows].sum(axis=0), atol=1e-5)
