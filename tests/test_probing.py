"""How many cells are probed: chosen by what validation loses."""

import functools

import numpy as np
import pytest
from decode_world import B, World

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.inverted import cell_places
from semid_jax.eval.probing import (
    SHARES,
    choose_probes,
    item_places,
    probes_for_recall,
    search_loss,
    search_ndcg,
)
from semid_jax.eval.users import Users


@pytest.mark.parametrize("cells", [1, 12, 110, 1000])
@pytest.mark.parametrize("enough", [1, 7, 40, 110, 5000])
def test_the_fewest_probes_that_lose_little_are_taken_and_few_are_tried(cells, enough):
    asked = []

    def ndcg(probes):
        asked.append(probes)
        return np.full(3, 0.5 if probes is None or probes >= enough else 0.49)

    chosen, tried = choose_probes(cells, 0.005, ndcg)
    row = sorted({int(np.ceil(share * cells)) for share in SHARES})
    assert chosen == next((p for p in row if p >= enough), cells)
    assert asked[0] is None
    assert len(asked) == len(set(asked)) <= 6
    lost = {p: pytest.approx((0.02 * (p < enough),) * 2) for p in asked[1:]}  # all users alike
    assert tried == {cells: (0.0, 0.0), **lost}


def test_all_cells_are_probed_where_validation_tells_nothing():
    assert choose_probes(12, 0.005, lambda _: np.zeros(3))[0] == 12


def test_the_interval_of_a_loss_is_that_of_a_ratio():
    loss = search_loss(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0]))
    # residuals -.5, .5, 0, 0: deviation sqrt(1/8), over .5 and sqrt(4)
    assert loss == (0.5, pytest.approx(0.5 + 1.645 * np.sqrt(0.125)))


@pytest.mark.parametrize(("users", "chosen"), [(200_000, 6), (400, 12)])
def test_the_same_loss_is_enough_for_many_users_and_not_for_few(users, chosen):
    def ndcg(probes):
        gains = np.ones(users)
        if probes is not None and probes < 12:
            gains[: users // 400] = 0.0  # a quarter of a percent, one user of 400
        return gains if probes is None or probes >= 6 else 0.9 * gains

    assert choose_probes(12, 0.005, ndcg)[0] == chosen


def test_what_is_lost_is_the_ndcg_of_the_lists():
    world = World()
    scores, config = world.scores(), DecodeConfig(k=20, chunk=64)
    targets = np.argsort(-scores, axis=1)[:, 2].astype(np.int32)  # third under exact search
    side = Users(np.arange(B), np.zeros((B, 1), np.int32), targets)
    queries = [(world.query, slice(0, B), B)]
    asked = queries, world.index, side, None, config
    assert search_ndcg(*asked, None) == pytest.approx(np.full(B, 0.5))  # 1 / log2(3 + 1)
    inside = world.inside_best_cells(scores, 1)
    gains = []
    for user in range(B):
        found = world.ranked(inside)[user][:10]
        rank = found.index(targets[user]) + 1 if targets[user] in found else np.inf
        gains.append(1 / np.log2(rank + 1))
    assert 0 < np.mean(gains) != 0.5
    assert search_ndcg(*asked, 1) == pytest.approx(gains)


@pytest.mark.parametrize("recall", [0.3, 0.6, 0.9])
def test_as_few_cells_are_probed_as_surely_hold_the_exact_lists(recall):
    world = World("random")
    queries = [(world.query, slice(0, B), B)]
    best = world.ranked(world.scores())
    exact = np.array([found[:10] for found in best], np.int32)
    places = item_places(queries, exact, functools.partial(cell_places, world.index))
    probes, missed = probes_for_recall(places, world.index.n_cells, recall)

    def held(count):
        inside = world.ranked(world.inside_best_cells(world.scores(), count))
        pairs = zip(best, inside, strict=True)
        return np.array([np.isin(a[:10], b[:10]).mean() for a, b in pairs])

    losses = [search_loss(np.ones(B), held(count)) for count in range(1, world.index.n_cells + 1)]
    enough = [loss.upper <= 1.0 - recall for loss in losses]
    assert probes == enough.index(True) + 1
    assert missed == pytest.approx(losses[probes - 1])


def test_lists_of_no_items_are_found_whole_and_the_others_decide():
    places = np.array([[1, 4, 2, 3], [5, 0, 0, 0], [0, 0, 0, 0]])
    assert probes_for_recall(places, 9, 1.0) == (5, (0.0, 0.0))
    assert probes_for_recall(places[2:], 9, 1.0) == (1, (0.0, 0.0))
