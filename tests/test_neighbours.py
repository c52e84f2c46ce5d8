"""Neighbourhood baselines against dense, slow versions, and their tuning."""

import numpy as np
import pytest

from semid_jax.eval.baselines import neighbour_budget, run_baselines, tune
from semid_jax.eval.ranking import target_ranks
from semid_jax.models import neighbours
from semid_jax.models.neighbours import (
    Histories,
    _blocks,
    _tie_scores,
    fit_item_knn,
    fit_modality_knn,
    no_neighbours,
    rank_targets,
)
from semid_jax.types import Interactions, ItemFeatures

N = 30


def recommend(table, histories, popularity, k=50, last=0, exclude_history=False):
    """Ranks the catalogue for every user: int32[U, k], best first, 0 where there are no more."""
    lists = np.zeros((histories.n_users, k), np.int32)
    ties = _tie_scores(popularity)
    for start, reached, row, items in _blocks(table, histories, last):
        scores = reached.toarray() + ties
        if exclude_history:
            scores[row, items] = -np.inf
        width = min(k, scores.shape[1])
        best = np.argpartition(scores, -width, axis=1)[:, -width:]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((best, -values), axis=1)
        ranked = np.take_along_axis(best, order, axis=1)
        valid = np.take_along_axis(values, order, axis=1) > -np.inf
        lists[start : start + len(scores), :width] = np.where(valid, ranked, 0)
    return lists


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 7 * (N + 1))  # several blocks, the last one short
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, 40)
    items = np.concatenate([rng.permutation(N)[:n] + 1 for n in lengths]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(items, offsets)


def rows(histories):
    return [
        histories.items[a:b]
        for a, b in zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
    ]


def dense_cosine(histories):
    chosen = np.zeros((histories.n_users, N + 1))
    for user, row in enumerate(rows(histories)):
        chosen[user, row] = 1
    norms = np.maximum(np.linalg.norm(chosen, axis=0), 1e-9)
    cosine = chosen.T @ chosen / norms[:, None] / norms
    np.fill_diagonal(cosine, 0)
    return cosine


def slow_lists(similarity, histories, popularity, k, last, exclude):
    lists = []
    for row in rows(histories):
        recent = row[-last:] if last else row
        score = similarity[recent].mean(axis=0) if len(recent) else np.zeros(N + 1)
        allowed = [i for i in range(1, N + 1) if not (exclude and i in row)]
        allowed.sort(key=lambda i, s=score: (-round(s[i], 6), -popularity[i], i))
        lists.append((allowed + [0] * k)[:k])
    return np.array(lists)


def test_without_last_drops_the_end_and_never_goes_below_empty():
    histories = Histories(np.arange(1, 7, dtype=np.int32), np.array([0, 1, 3, 6]))
    shorter = histories.without_last(2)
    assert shorter.items.tolist() == [4]
    assert shorter.offsets.tolist() == [0, 0, 0, 1]
    assert histories.without_last(0).items.tolist() == [1, 2, 3, 4, 5, 6]


def test_item_knn_by_hand():
    # users: {1,2}, {1,2,3}, {1,4}; a repeated choice counts once
    histories = Histories(np.array([1, 2, 1, 2, 3, 2, 1, 4], np.int32), np.array([0, 2, 6, 8]))
    table = fit_item_knn(histories, 4, neighbours=2)
    assert table.items[0].tolist() == [0, 0]
    assert table.items[1].tolist() == [2, 3]
    np.testing.assert_allclose(table.similarity[1], [2 / 6**0.5, 1 / 3**0.5], rtol=1e-6)
    assert table.items[4].tolist() == [1, 0]
    np.testing.assert_allclose(table.similarity[4], [1 / 3**0.5, 0], rtol=1e-6)


def test_item_knn_keeps_the_nearest_of_the_dense_cosines(world):
    table, cosine = fit_item_knn(world, N, neighbours=5), dense_cosine(world)
    for item in range(1, N + 1):
        expected = np.sort(cosine[item])[::-1][:5]
        np.testing.assert_allclose(table.similarity[item], expected, rtol=1e-5)
        np.testing.assert_allclose(cosine[item, table.items[item]], expected, rtol=1e-5)


def test_modality_knn_leaves_out_items_without_it():
    x = np.array([[1, 0], [1, 0], [2, 0.1], [0, 1], [1, 0.5], [0, 0]], np.float32)
    present = np.array([False, True, True, True, False, True])
    table = fit_modality_knn(x, present, neighbours=3)
    assert table.items[1].tolist() == [2, 0, 0]  # 3 is orthogonal, 4 lacks it, 5 has no direction
    assert table.items[2].tolist() == [1, 3, 0]
    assert table.items[4].tolist() == [0, 0, 0]
    np.testing.assert_allclose(table.similarity[1, 0], 2 / np.hypot(2, 0.1), rtol=1e-6)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("last", [0, 3])
def test_recommend_equals_the_slow_ranking(world, last, exclude):
    popularity = np.bincount(world.items, minlength=N + 1)
    table = fit_item_knn(world, N, neighbours=4)
    similarity = table.matrix().toarray()
    known = Histories(np.append(world.items, []).astype(np.int32), world.offsets).without_last(1)
    found = recommend(table, known, popularity, 12, last, exclude)
    np.testing.assert_array_equal(
        found, slow_lists(similarity, known, popularity, 12, last, exclude)
    )


def test_popularity_is_the_ranking_without_neighbours(world):
    popularity = np.bincount(world.items, minlength=N + 1)
    popularity[[4, 9]] = popularity.max() + 1
    found = recommend(no_neighbours(N), world, popularity, N)
    expected = sorted(range(1, N + 1), key=lambda i: (-popularity[i], i))
    assert expected[:2] == [4, 9]
    assert (found == np.array(expected)).all()


def test_exclusion_removes_the_whole_history_and_pads(world):
    popularity = np.bincount(world.items, minlength=N + 1)
    found = recommend(fit_item_knn(world, N, 9), world, popularity, N + 3, 2, True)
    for shown, row in zip(found, rows(world), strict=True):
        real = shown[shown > 0]
        assert set(real) == set(range(1, N + 1)) - set(row)
        assert (shown[len(real) :] == 0).all()


@pytest.mark.parametrize("exclude", [False, True])
def test_rank_targets_is_the_place_in_the_full_list(world, exclude):
    popularity = np.bincount(world.items, minlength=N + 1)
    known = world.without_last(1)
    targets = world.items[world.offsets[1:] - 1].copy()
    targets[0] = known.items[0]  # in its user's history
    table = fit_item_knn(known, N, neighbours=6)
    lists = recommend(table, known, popularity, N, 5, exclude)
    ranks = rank_targets(table, known, popularity, targets, 5, exclude)
    np.testing.assert_array_equal(ranks, target_ranks(lists, targets))
    assert (ranks[0] == 0) == exclude


@pytest.mark.parametrize("exclude", [False, True])
def test_user_without_history_goes_by_popularity(exclude):
    empty = Histories(np.zeros(0, np.int32), np.array([0, 0]))
    popularity = np.array([0, 1, 5, 3])
    table = fit_modality_knn(np.eye(4, dtype=np.float32), np.ones(4, bool), 2)
    assert recommend(table, empty, popularity, 3, 0, exclude).tolist() == [[2, 3, 1]]
    assert rank_targets(table, empty, popularity, np.array([3]), 0, exclude).tolist() == [2]


def test_tune_takes_the_best_of_what_it_tried(world):
    known = world.without_last(1)
    targets = world.items[world.offsets[1:] - 1]
    popularity = np.bincount(known.items, minlength=N + 1)
    table = fit_item_knn(known, N, neighbours=20)
    choice = tune(table, known, targets, popularity, neighbours=(2, 10, 99), last=(1, 0))
    assert [(t["neighbours"], t["last"]) for t in choice.trials] == [
        (2, 1), (2, 0), (10, 1), (10, 0), (20, 1), (20, 0),
    ]  # fmt: skip
    assert choice.ndcg == max(t["ndcg@10"] for t in choice.trials)
    ranks = rank_targets(choice.table, known, popularity, targets, choice.last)
    gains = np.where((ranks > 0) & (ranks <= 10), 1 / np.log2(1 + np.maximum(ranks, 1)), 0)
    assert choice.ndcg == pytest.approx(gains.mean())


def test_run_baselines_learns_from_training_items_only(world):
    features = ItemFeatures(
        x={"text": np.random.default_rng(1).normal(size=(N + 1, 4)).astype(np.float32)},
        present={"text": np.arange(N + 1) > 0},
    )

    def run(items):
        users = np.arange(world.n_users).astype(str)
        interactions = Interactions(users, items, world.offsets, None, N)
        return dict(run_baselines(interactions, features))

    results = run(world.items)
    assert list(results) == ["popularity", "item_knn", "text_knn"]
    ends = world.offsets[1:] - 1
    test_items = world.items.copy()
    changed = world.items[ends] % 2 == 0
    test_items[ends[changed]] = 1  # what these users choose last changes nobody's list
    for name, other in run(test_items).items():
        assert other.setting == results[name].setting
        np.testing.assert_array_equal(other.validation_ranks, results[name].validation_ranks)
        same = results[name].test_ranks[~changed]
        np.testing.assert_array_equal(other.test_ranks[~changed], same)
    assert 0 < changed.sum() < world.n_users


def test_neighbour_budget():
    assert neighbour_budget(3416) == 1000
    assert neighbour_budget(10**7) == 50
    assert neighbour_budget(300_000) == 223
