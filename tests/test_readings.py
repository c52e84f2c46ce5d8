"""What PMAT says of users: causal, the same in any batch, and a threshold that chance explains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perceiver_world import D, M, N, choose, make_perceiver

from semid_jax.models.fusion import Archetypes
from semid_jax.models.pmat import PmatConfig
from semid_jax.models.stream import absorb_all, first_state, preferences
from semid_jax.train import readings as reading
from semid_jax.types import Interactions

W = 4


@pytest.fixture(scope="module")
def world():
    perceiver = make_perceiver()
    rng = np.random.default_rng(0)
    archetypes = Archetypes(
        jnp.asarray([[0.2, 0.8], [0.8, 0.2]]),
        jnp.asarray(rng.normal(size=(2, 6)), jnp.float32),
        jnp.ones((2, 6)),
    )
    lengths = np.array([3, 12, 40, 7])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, N + 1, offsets[-1]).astype(np.int32)
    return perceiver, archetypes, Interactions(np.arange(4).astype(str), items, offsets, None, N)


def read(world, items=None, threshold=1.0):
    perceiver, archetypes, interactions = world
    if items is not None:
        interactions = Interactions(
            interactions.user_ids, items, interactions.offsets, None, interactions.n_items
        )
    return reading.read_all(perceiver, archetypes, interactions, threshold, W, 0.5)


NAMES = "alpha", "alpha_short", "drift", "fired", "archetype", "belief"


def test_a_later_item_changes_nothing_at_or_before_its_place(world):
    interactions = world[-1]
    start = int(interactions.offsets[2])
    place = start + 17
    changed = interactions.items.copy()
    changed[place] = changed[place] % N + 1
    before, after = read(world), read(world, changed)
    later = slice(place + 1, int(interactions.offsets[3]))
    for name in NAMES:
        old, new = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(old[: place + 1], new[: place + 1], err_msg=name)
        np.testing.assert_array_equal(old[later.stop :], new[later.stop :], err_msg=name)
    assert np.abs(before.alpha[later] - after.alpha[later]).max() > 1e-6


def test_readings_are_those_of_states_one_item_after_the_other(world):
    perceiver, archetypes, interactions = world
    found = read(world)
    absorb, ask = jax.jit(absorb_all), jax.jit(preferences)
    held = moved = kept = 0
    for user in range(4):
        flat = slice(*interactions.offsets[user : user + 2])
        state, said = first_state(perceiver, 1, W)
        for t, item in enumerate(interactions.items[flat]):
            at = flat.start + t
            np.testing.assert_allclose(found.alpha[at], said.alpha[:, 0], atol=1e-5)
            np.testing.assert_allclose(found.alpha_short[at], said.alpha_short[:, 0], atol=1e-5)
            np.testing.assert_allclose(found.belief[at], said.belief[..., 0], rtol=1e-3, atol=1e-3)
            known = ask(perceiver, state)
            np.testing.assert_allclose(known.belief[0], said.belief[..., 0], atol=1e-5)
            np.testing.assert_allclose(known.alpha[0], said.alpha[:, 0], atol=1e-5)
            assert found.fired[at] == bool(said.fired[0])
            points = np.concatenate([2 * said.alpha[:, 0], 0.5 * said.interest[:, 0]])
            centres = np.concatenate([2 * archetypes.alpha, 0.5 * archetypes.interest], axis=1)
            far = ((points - centres) ** 2).sum(axis=1)
            near = int(np.argmin(far))
            if t == 0 or said.fired[0] or far[near] < 0.5 * far[held]:
                moved += t > 0 and near != held
                held = near
            kept += near != held
            assert found.archetype[at] == held
            state, said = absorb(perceiver, state, jnp.asarray([item]), jnp.float32(1.0))
    assert moved  # some left their archetype
    assert kept  # and some stayed though another was nearer


def test_users_are_read_the_same_in_any_batch(world, monkeypatch):
    whole = read(world)
    monkeypatch.setattr(reading, "ROWS", 2)
    monkeypatch.setattr(reading, "BLOCK", 5)
    small = read(world)
    for name in ("alpha", "alpha_short"):
        np.testing.assert_allclose(getattr(whole, name), getattr(small, name), atol=1e-5)
    np.testing.assert_array_equal(whole.archetype, small.archetype)
    np.testing.assert_array_equal(whole.fired, small.fired)


def test_what_ends_say_is_the_reading_there_where_no_drift_is_looked_for(world, monkeypatch):
    perceiver, _, interactions = world
    monkeypatch.setattr(reading, "USERS", 3)
    end = interactions.lengths - 1
    alpha, interest = reading.read_ends(perceiver, interactions, end)
    assert interest.shape == (4, 6)
    whole = read(world, threshold=np.inf)
    np.testing.assert_allclose(alpha, whole.alpha[interactions.offsets[:-1] + end], atol=1e-4)


def many(rng, perceiver, drifting, count=200, each=14):
    """Users of whom some change their tastes half way."""
    histories = []
    for u in range(count):
        tastes = rng.integers(3, size=M)
        after = (tastes + 1) % 3 if u < drifting else tastes
        first = choose(rng, perceiver, [0.5, 0.5], tastes, each)
        histories.append(np.concatenate([first, choose(rng, perceiver, [0.5, 0.5], after, each)]))
    offsets = np.arange(count + 1) * 2 * each
    names = np.arange(count).astype(str)
    return Interactions(names, np.concatenate(histories), offsets, None, len(perceiver.mask) - 1)


def test_the_threshold_is_that_of_users_who_do_not_drift():
    perceiver = make_perceiver(missing=0.0, items=1000)
    one = Archetypes(jnp.ones((1, M)) / M, jnp.zeros((1, D)), jnp.ones((1, D)))
    config = PmatConfig(window=6, quantile=0.9)
    rng = np.random.default_rng(6)
    for drifting in (0, 60):
        interactions = many(rng, perceiver, drifting)
        threshold = reading.fit_threshold(perceiver, one, interactions, config, 0)
        fired = reading.read_all(perceiver, one, interactions, threshold, 6, 0.5).fired
        users = np.repeat(np.arange(200), interactions.lengths)
        any_drift = np.bincount(users[fired], minlength=200) > 0
        assert any_drift[drifting:].mean() <= 0.16  # .1 by chance, and its error
        assert not drifting or any_drift[:drifting].mean() > 0.85
    for each in (3, 6):  # of 12 items before those held out none is read behind two windows
        short = many(rng, perceiver, 0, each=each)
        assert reading.fit_threshold(perceiver, one, short, config, 0) == np.inf
