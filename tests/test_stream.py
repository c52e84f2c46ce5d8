"""A user's state: the same item by item as at once; drifts noticed in time and told apart."""

import jax
import jax.numpy as jnp
import numpy as np
from perceiver_world import N, choose, make_perceiver

from semid_jax.models.memory import Memory
from semid_jax.models.perceiver import drift_evidence, evidence, first_prior, posterior
from semid_jax.models.stream import absorb_all, drift_score, first_state

W = 8
step = jax.jit(absorb_all)


def play(perceiver, histories, threshold=np.inf):
    """Readings after each item: lists [T] of Reading, users last; and the last state."""
    state, reading = first_state(perceiver, len(histories), W)
    readings = [reading]
    for items in np.asarray(histories, np.int32).T:
        state, reading = step(perceiver, state, items, jnp.float32(threshold))
        readings.append(reading)
    return readings, state


def memory_of(perceiver, items):
    items = np.asarray(items, int)
    return Memory(
        jnp.sum(perceiver.readings[items], axis=0),
        jnp.sum(perceiver.mask[items], axis=0).astype(jnp.float32),
    )


def test_without_a_drift_a_state_is_the_sum_of_its_items():
    perceiver = make_perceiver()
    latents, prior = perceiver.latents, first_prior(perceiver.latents)
    rng = np.random.default_rng(0)
    histories = rng.integers(1, N + 1, (3, 25))
    readings, state = play(perceiver, histories)
    for t in (0, 1, 7, 25):
        for u in range(3):
            whole, short = histories[u, :t], histories[u, max(t - W, 0) : t]
            for name, items in (("alpha", whole), ("alpha_short", short)):
                log_p, _ = evidence(latents, prior, memory_of(perceiver, items))
                found = getattr(readings[t], name)[:, u]
                expected = posterior(latents, prior, log_p)
                np.testing.assert_allclose(found, expected.alpha, atol=2e-4, err_msg=name)
            log_p, _ = evidence(latents, prior, memory_of(perceiver, whole))
            expected = posterior(latents, prior, log_p).interest
            np.testing.assert_allclose(readings[t].interest[:, u], expected, atol=2e-3)
    parts = memory_of(perceiver, histories[1, :-W]), memory_of(perceiver, histories[1, -W:])
    drift, _, _ = drift_evidence(latents, prior, *parts)
    np.testing.assert_allclose(readings[-1].drift[:, 1], drift, atol=2e-3)
    np.testing.assert_array_equal(state.recent[:, 1], histories[1, -W:])
    np.testing.assert_array_equal(state.seen, 25)


def test_drift_is_judged_with_a_full_window_and_as_much_before():
    readings, _ = play(make_perceiver(), np.ones((1, 20), int), threshold=-np.inf)
    judged = [bool(np.isfinite(r.drift).all()) for r in readings]
    assert judged.index(True) == 2 * W
    assert [bool(r.fired[0]) for r in readings].index(True) == 2 * W


def test_padding_leaves_a_state_as_it_is():
    perceiver = make_perceiver()
    histories = np.random.default_rng(1).integers(1, N + 1, (2, 12))
    readings, state = play(perceiver, histories)
    after, reading = step(perceiver, state, jnp.zeros(2, jnp.int32), jnp.float32(-np.inf))
    jax.tree.map(np.testing.assert_array_equal, after, state)
    np.testing.assert_array_equal(reading.alpha, readings[-1].alpha)
    assert not reading.fired.any()


def test_a_stream_cut_in_two_and_users_apart_give_the_same_states():
    perceiver = make_perceiver(strength=4.0)
    rng = np.random.default_rng(2)
    histories = np.stack(
        [
            np.concatenate([choose(rng, perceiver, [0.9, 0.1], [0, 0], 20),
                            choose(rng, perceiver, [0.9, 0.1], [u % 3, 1], 14)])
            for u in range(4)
        ]
    )  # fmt: skip
    together, state = play(perceiver, histories, 2.0)
    assert any(r.fired.any() for r in together)
    for u in range(4):
        alone, own = play(perceiver, histories[u : u + 1], 2.0)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a.alpha[:, u], b.alpha[:, 0], atol=1e-4)
            np.testing.assert_array_equal(a.fired[u], b.fired[0])
        np.testing.assert_array_equal(state.recent[:, u], own.recent[:, 0])
    _, half = play(perceiver, histories[:, :17], 2.0)
    for items in histories[:, 17:].T:
        half, _ = step(perceiver, half, items, jnp.float32(2.0))
    jax.tree.map(np.testing.assert_array_equal, half, state)


def users(rng, perceiver, before, after, count=60, each=24):
    """Histories whose weights and tastes change after `each` items, if at all."""
    histories = []
    for _ in range(count):
        first = choose(rng, perceiver, *before, each)
        histories.append(np.concatenate([first, choose(rng, perceiver, *after, each)]))
    return np.stack(histories)


def test_drifts_are_noticed_within_a_window_and_told_apart():
    perceiver = make_perceiver(strength=3.0, missing=0.0, items=1000)
    rng = np.random.default_rng(3)
    steady = [0.85, 0.15], [0, 1]
    kinds = {
        "none": users(rng, perceiver, steady, steady),
        "weights": users(rng, perceiver, steady, ([0.1, 0.9], [0, 1])),
        "interest": users(rng, perceiver, steady, ([0.85, 0.15], [2, 2])),
    }
    share, weights = {}, {}
    for name, histories in kinds.items():
        readings, _ = play(perceiver, histories, threshold=4.0)
        fired = np.stack([r.fired for r in readings])  # [T + 1, users]
        drift = np.stack([r.drift for r in readings])
        when = fired[24 : 24 + W + 1]
        share[name] = fired.any(axis=0).mean() if name == "none" else when.any(axis=0).mean()
        first = 24 + when.argmax(axis=0)
        at = drift[first, :, np.arange(len(histories))][when.any(axis=0)]
        weights[name] = (at[:, 0] > at[:, 1]).mean() if len(at) else np.nan
        if name != "none":
            alpha = np.asarray(readings[-1].alpha)[0]
            wanted = {"weights": 0.1, "interest": 0.85}[name]
            assert abs(np.median(alpha) - wanted) < 0.15, name
    assert share["none"] <= 0.1
    assert min(share["weights"], share["interest"]) > 0.8
    assert weights["weights"] > 0.7
    assert weights["interest"] < 0.3


def test_the_memory_begins_anew_where_the_drift_did():
    perceiver = make_perceiver(strength=6.0, missing=0.0)
    rng = np.random.default_rng(4)
    histories = users(rng, perceiver, ([0.8, 0.2], [0, 1]), ([0.8, 0.2], [2, 2]), count=80)
    begun = []
    state, reading = first_state(perceiver, len(histories), W)
    for t, items in enumerate(np.asarray(histories, np.int32).T):
        state, reading = step(perceiver, state, items, jnp.float32(4.0))
        fired = np.asarray(reading.fired)
        begun += list((t + 1 - np.asarray(state.seen))[fired])
        kept = (np.asarray(state.recent) > 0).sum(axis=0)[fired]
        np.testing.assert_array_equal(np.asarray(state.seen)[fired], kept)
    assert len(begun) > 60
    assert np.median(np.abs(np.array(begun) - 24)) <= 2


def test_the_score_of_drift_is_that_of_either_kind():
    drift = jnp.asarray([[1.0, -jnp.inf], [2.0, -jnp.inf]])
    np.testing.assert_allclose(drift_score(drift), [np.log(np.e + np.e**2), -np.inf], rtol=1e-6)
