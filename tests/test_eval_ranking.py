"""Ranking metrics against values worked by hand."""

import numpy as np
import pytest

from semid_jax.decode.retrieved import Retrieved
from semid_jax.eval.ranking import (
    cutoffs_of,
    paired_difference,
    ranking_metrics,
    summary,
    target_ranks,
    without_seen,
)
from semid_jax.eval.searching import unseen_ranks
from semid_jax.eval.users import Users


def test_rank_of_the_target_counts_from_one_and_is_zero_where_absent():
    items = np.array([[7, 3, 5], [7, 3, 5], [7, 3, 5], [0, 0, 0]], np.int32)
    assert target_ranks(items, np.array([7, 5, 9, 0], np.int32)).tolist() == [1, 3, 0, 0]


def test_seen_items_leave_a_list_and_the_others_move_up():
    items = np.array([[7, 3, 5, 9], [7, 3, 0, 0], [1, 2, 3, 4]], np.int32)
    seen = np.array([[3, 9, 0], [7, 7, 7], [0, 0, 0]], np.int32)
    expected = [[7, 5, 0, 0], [3, 0, 0, 0], [1, 2, 3, 4]]
    assert without_seen(items, seen).tolist() == expected


def test_without_history_a_list_is_filled_from_behind():
    """Batches of two users, the last one half padding."""
    lists = np.array([[7, 3, 5, 9], [1, 2, 3, 4], [8, 6, 4, 2]], np.int32)
    seen = np.array([[3, 9, 0], [0, 0, 0], [8, 6, 4]], np.int32)
    side = Users(np.arange(3), np.zeros((3, 1), np.int32), np.array([5, 4, 2], np.int32))
    queries = [(0, slice(0, 2), 2), (2, slice(2, 3), 1)]

    def search(at):
        items = np.resize(lists[at:], (2, 4))
        return Retrieved(items, np.zeros((2, 4)), np.zeros(2))

    assert unseen_ranks(queries, search, side, seen).tolist() == [2, 4, 1]
    assert unseen_ranks(queries, search, side, np.zeros((3, 0))).tolist() == [3, 4, 4]


def test_lists_tell_of_no_longer_ones():
    assert [cutoffs_of(k) for k in (50, 20, 19, 1)] == [
        (1, 5, 10, 20, 50), (1, 5, 10, 20), (1, 5, 10), (1,),
    ]  # fmt: skip


def test_metrics_of_four_users_by_hand():
    metrics = ranking_metrics(np.array([1, 3, 7, 0]), cutoffs=(1, 5, 10))
    assert metrics["recall@1"].tolist() == [1, 0, 0, 0]
    assert metrics["recall@5"].tolist() == [1, 1, 0, 0]
    assert metrics["recall@10"].tolist() == [1, 1, 1, 0]
    assert metrics["ndcg@5"].tolist() == [1, 0.5, 0, 0]  # log2(1 + 3) = 2
    np.testing.assert_allclose(metrics["ndcg@10"], [1, 0.5, 1 / 3, 0], rtol=1e-6)  # log2(8) = 3
    np.testing.assert_allclose(metrics["mrr@10"], [1, 1 / 3, 1 / 7, 0], rtol=1e-6)
    assert metrics["mrr@1"].tolist() == [1, 0, 0, 0]


def test_ndcg_equals_the_general_formula():
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(30)[:20] + 1 for _ in range(40)]).astype(np.int32)
    targets = rng.integers(1, 31, 40).astype(np.int32)
    expected = []
    for row, target in zip(items, targets, strict=True):
        relevance = [float(item == target) for item in row[:10]]
        expected.append(sum(r / np.log2(i + 2) for i, r in enumerate(relevance)))
    found = ranking_metrics(target_ranks(items, targets))["ndcg@10"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_interval_is_the_bootstrap_of_users():
    rng = np.random.default_rng(1)
    values = rng.choice([0.0, 0.5, 1.0], size=400, p=[0.7, 0.2, 0.1])
    found = summary({"ndcg@10": values}, resamples=4000)
    slow = [values[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert found["ndcg@10"] == pytest.approx(values.mean())
    assert found["ndcg@10_low"] == pytest.approx(np.percentile(slow, 2.5), abs=0.004)
    assert found["ndcg@10_high"] == pytest.approx(np.percentile(slow, 97.5), abs=0.004)
    assert found == summary({"ndcg@10": values}, resamples=4000)
    assert found != summary({"ndcg@10": values}, resamples=4000, seed=1)


def test_interval_of_continuous_values_is_as_wide_as_theory_says():
    values = np.random.default_rng(2).normal(size=2500)
    found = summary({"x": values})
    width = 2 * 1.96 * values.std() / np.sqrt(2500)
    assert found["x_high"] - found["x_low"] == pytest.approx(width, rel=0.1)


def test_summary_keeps_metrics_of_one_user_together():
    a = np.array([0.0, 1.0] * 50)
    found = summary({"a": a, "b": 1 - a})
    assert found["a_low"] + found["b_high"] == pytest.approx(1.0)
    assert summary({}) == {}


def test_paired_difference_sees_what_unpaired_intervals_hide():
    base = np.random.default_rng(3).random(500)
    better = base + 0.01
    found = paired_difference(better, base)
    assert found["difference"] == pytest.approx(0.01)
    assert 0 < found["low"] <= found["high"]
    assert found["relative"] == pytest.approx(0.01 / base.mean())
    assert paired_difference(base, base * 0)["relative"] == 0.0
    with pytest.raises(ValueError, match=r"same users: shapes \(500,\) and \(3,\)"):
        paired_difference(base, base[:3])
