"""`shortlist` against a sort of every row."""

import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.decode.shortlist import (
    FEW,
    GROUPS,
    RUN,
    SPARE,
    _bit_of_rank,
    _positions,
    _sum_up_to,
    shortlist,
)

ROWS = 2 * FEW


def expect_best(scores, k):
    """All that is better than rank k is chosen, nothing twice, and few others."""
    best, chosen = map(np.asarray, shortlist(jnp.asarray(scores), k))
    assert chosen.shape[1] == min(k + int(k * SPARE), scores.shape[1])
    for row, at, found in zip(scores, chosen, best, strict=True):
        at = at[found > -np.inf]
        np.testing.assert_array_equal(row[at], found[found > -np.inf])
        assert len(set(at.tolist())) == len(at)
        finite = np.sort(row[row > -np.inf])[::-1]
        assert len(at) >= min(k, len(finite))
        assert np.all(row[at] > -np.inf)
        if len(finite) >= k:
            assert np.isin(np.flatnonzero(row > finite[k - 1]), at).all()


@pytest.mark.parametrize("n", [200, 820, 1700, 3000, 2999, 4096 + GROUPS[0] - 1])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_best_of_random_rows(n, k):
    scores = np.random.default_rng(n + k).normal(size=(ROWS, n)).astype(np.float32)
    expect_best(scores, k)
    expect_best(scores[: FEW - 1], k)


def test_groups_and_what_is_left_over_at_the_end():
    scores = np.random.default_rng(0).normal(size=(ROWS, 3007)).astype(np.float32)
    scores[0, -20:] += 100.0  # the last group of each and those of one
    scores[1, 5 :: 3007 // GROUPS[0]] += 100.0  # one group alone
    scores[2, :40] += 100.0
    expect_best(scores, 20)


def test_rows_with_few_to_choose():
    scores = np.random.default_rng(1).normal(size=(ROWS, 3000)).astype(np.float32)
    scores[0] = -np.inf
    scores[1, 7:] = -np.inf
    scores[2, ::2] = -np.inf
    expect_best(scores, 30)


def test_outliers_and_skewed_rows():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(ROWS, 3000)).astype(np.float32)
    scores[0, 17] = 1e5
    scores[1] = np.exp(scores[1] * 2)
    scores[2] = -np.exp(scores[2] * 2)
    expect_best(scores, 50)


def test_ties_at_rank_k_push_out_nothing_better():
    scores = np.random.default_rng(4).integers(0, 3, (ROWS, 3000)).astype(np.float32)
    scores[0] = 1.0
    scores[1, 17] = 1e30
    scores[2, -30::3] = 9.0  # behind all that ties
    scores[3] = -np.inf
    scores[3, 1000:] = 0.0
    scores[3, 2999] = 1.0
    expect_best(scores, 50)


def test_all_are_chosen_where_all_are_asked_for():
    scores = np.random.default_rng(3).normal(size=(ROWS, 64)).astype(np.float32)
    best, chosen = shortlist(jnp.asarray(scores), 64)
    np.testing.assert_array_equal(np.sort(chosen), np.tile(np.arange(64), (ROWS, 1)))
    np.testing.assert_array_equal(np.sort(best), np.sort(scores))


@pytest.mark.parametrize("n", [1, RUN, RUN + 1, RUN**2, 40_003])
def test_counts_are_those_of_a_running_sum(n):
    each = np.random.default_rng(n).integers(0, 9, (3, n)).astype(np.float32)
    np.testing.assert_array_equal(_sum_up_to(jnp.asarray(each)), np.cumsum(each, axis=1))


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000, 40_003])
def test_all_that_are_set_have_a_slot(n):
    reach = np.random.default_rng(n).random((4, n)) < [[0.0], [0.01], [0.5], [1.0]]
    position, filled = map(np.asarray, _positions(jnp.asarray(reach), n))
    for row, at, full in zip(reach, position, filled, strict=True):
        np.testing.assert_array_equal(np.sort(at[full]), np.flatnonzero(row))
    few, filled = _positions(jnp.asarray(reach), 1)
    np.testing.assert_array_equal(few, position[:, :1])
    np.testing.assert_array_equal(np.asarray(filled)[:, 0], reach.any(axis=1))


def test_bits_of_a_word():
    rng = np.random.default_rng(0)
    words = [0xFFFFFFFF, 0x80000000, 1, *rng.integers(1, 2**32, 20)]
    for word in map(int, words):
        places = [i for i in range(32) if word >> i & 1]
        of_word = jnp.full(len(places), word, jnp.uint32)
        found = _bit_of_rank(of_word, jnp.arange(len(places), dtype=jnp.int32))
        np.testing.assert_array_equal(found, places)
