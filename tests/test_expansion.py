"""Expanded catalogues: what is drawn around real items, and who chooses it."""

import numpy as np
import pytest

from semid_jax.data import expansion
from semid_jax.data.config import DataConfig, read
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.types import InputError

WORLD = SyntheticConfig(n_users=80, n_items=60, topics=6)
N, LARGE = 60, 500


def expand(raw, items):
    return expansion.expanded(raw, expansion.draw(raw, items))


@pytest.fixture(scope="module")
def sets():
    raw = read(DataConfig(), WORLD)
    return raw, expand(raw, LARGE)


def test_users_and_families_stay_and_names_say_the_parent(sets):
    raw, large = sets
    before, after = raw.interactions, large.interactions
    assert (after.offsets == before.offsets).all()
    assert after.n_items == large.catalogue.n_items == LARGE
    names = large.catalogue.item_ids
    assert (names[: N + 1] == raw.catalogue.item_ids).all()
    assert len(np.unique(names)) == LARGE + 1
    parents = np.char.partition(names[after.items], "+")[:, 0]
    assert (parents == raw.catalogue.item_ids[before.items]).all()
    _, sizes = np.unique(np.char.partition(names[1:], "+")[:, 0], return_counts=True)
    assert set(sizes) == {LARGE // N, LARGE // N + 1}


def test_both_real_items_and_children_are_chosen_and_the_same_again(sets):
    raw, large = sets
    items = large.interactions.items
    assert 0.05 < (items <= N).mean() < 0.5
    assert len(np.unique(items)) > 3 * N
    again = expand(raw, LARGE)
    assert (again.interactions.items == items).all()
    np.testing.assert_array_equal(
        again.catalogue.vectors["fused"], large.catalogue.vectors["fused"]
    )


def test_children_keep_mean_and_covariance_of_their_cells():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0] * np.linspace(2.0, 0.2, 8)
    points = (rng.standard_normal((400, 8)) @ turn.T).astype(np.float32)
    parent = np.repeat(np.arange(400), 100)
    drawn, offsets = expansion.draw_children(points, parent, rng)
    cell, means = expansion.into_cells(points)
    whole = np.cov(points.T)
    for c in range(len(means)):
        children = drawn[cell[parent] == c]
        np.testing.assert_allclose(children.mean(axis=0), means[c], atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), whole, atol=0.04 * np.abs(whole).max())
    np.testing.assert_allclose(offsets.std(axis=0), 1.0, atol=0.1)


def test_users_choose_children_along_their_own_taste():
    """Of two children on opposite sides a user takes the same side again and again."""
    raw = read(DataConfig(), WORLD)
    family = expansion.Family(np.arange(N + 1) * 2)
    sides = np.tile([[4.0], [-4.0]], (N, 1)).astype(np.float32)
    chosen = expansion.choose_members(raw, family, sides, np.random.default_rng(0))
    side = np.where(chosen <= N, 0, 1 - 2 * ((chosen - N - 1) % 2))
    user = np.repeat(np.arange(80), raw.interactions.lengths)
    sums = np.bincount(user, side) / np.maximum(np.bincount(user, np.abs(side)), 1)
    assert np.abs(sums).mean() > 0.8  # .3 if sides were taken by chance
    assert abs(sums.mean()) < 0.3


def test_fewer_items_than_there_are_is_refused():
    with pytest.raises(InputError, match=r"data.expand: 59 items, this data set has 60"):
        expand(read(DataConfig(), WORLD), 59)


def test_as_many_items_as_there_are_changes_no_history(sets):
    raw, _ = sets
    same = expand(raw, N)
    assert (same.interactions.items == raw.interactions.items).all()
