"""Halves of histories: what is compared, against loops, and that it tells users apart."""

import numpy as np
from perceiver_world import K, M, choose, make_items, make_latents
from scipy.stats import pearsonr

from semid_jax.eval import reliability
from semid_jax.eval.reliability import coherences, partial_correlation, split_half
from semid_jax.models.perceiver import read_items
from semid_jax.models.stream import Perceiver
from semid_jax.types import Interactions, ItemFeatures


def test_partial_correlation_takes_off_what_the_control_explains():
    rng = np.random.default_rng(0)
    control = rng.normal(size=(500, 2))
    left = control @ [3.0, 1.0] + rng.normal(size=500)
    right = control @ [3.0, -2.0] + rng.normal(size=500)
    assert abs(pearsonr(left, right)[0]) > 0.4
    assert abs(partial_correlation(left, right, control)) < 0.1
    none = np.zeros((500, 1))
    np.testing.assert_allclose(
        partial_correlation(left, right, none), pearsonr(left, right)[0], atol=1e-9
    )
    assert partial_correlation(np.ones(500), right, control) == 0.0


def test_coherence_is_the_mean_over_pairs():
    rng = np.random.default_rng(1)
    present = rng.random(21) < 0.7
    present[0] = False
    x = rng.normal(size=(21, 3)).astype(np.float32) * present[:, None]
    features = ItemFeatures({"a": x}, {"a": present})
    counts = rng.integers(1, 5, 21)
    counts[0] = 0
    items = rng.integers(1, 21, 12).astype(np.int32)
    histories = Interactions(np.array(["u", "v"]), items, np.array([0, 8, 12]), None, 20)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    weight = counts * present
    centred = (unit - weight @ unit / weight.sum()) * present[:, None]
    spread = weight @ (centred**2).sum(axis=1) / weight.sum()
    found = coherences(features, histories, counts)
    for user, part in ((0, items[:8]), (1, items[8:])):
        rows = [i for i in part if present[i]]
        pairs = [centred[a] @ centred[b] for i, a in enumerate(rows) for j, b in enumerate(rows)
                 if i != j]  # fmt: skip
        np.testing.assert_allclose(found[user, 0], np.mean(pairs) / spread, rtol=1e-4)


def world(strength, users=60, length=70):
    rng = np.random.default_rng(2)
    e, mask = make_items(rng, n=600, missing=0.1)
    latents = make_latents(rng, e, mask, strength=strength)
    perceiver = Perceiver(latents, read_items(latents, e, mask), mask)
    features = ItemFeatures(
        {name: e[:, m] for m, name in enumerate("ab")},
        {name: mask[:, m] for m, name in enumerate("ab")},
    )
    histories = []
    for _ in range(users):
        alpha = rng.dirichlet(np.ones(M))
        histories.append(choose(rng, perceiver, alpha, rng.integers(K, size=M), length))
    offsets = np.arange(users + 1) * length
    names = np.arange(users).astype(str)
    interactions = Interactions(names, np.concatenate(histories), offsets, None, len(e) - 1)
    return perceiver, features, interactions


def test_halves_agree_where_users_have_weights_and_not_where_they_choose_at_random():
    found = split_half(*world(3.0), seed=0)
    for kind in ("random", "time"):
        assert found[f"alpha_reliability_{kind}"] > 0.6
        assert found[f"alpha_coherence_{kind}"] > 0.4
    perceiver, features, interactions = world(3.0)
    rng = np.random.default_rng(3)
    items = rng.integers(1, 601, len(interactions.items)).astype(np.int32)
    names, offsets = interactions.user_ids, interactions.offsets
    found = split_half(perceiver, features, Interactions(names, items, offsets, None, 600), seed=0)
    assert abs(found["alpha_reliability_random"]) < 0.35


def test_nothing_is_said_of_few_users_or_short_histories():
    perceiver, features, interactions = world(3.0, users=reliability.FEWEST - 1)
    assert split_half(perceiver, features, interactions, seed=0) == {}
