"""Search among dense vectors against a sort of all scores."""

import numpy as np
import pytest

from semid_jax.decode.dense import dense_rank, retrieve_dense
from semid_jax.decode.topk import tie_hash

N, B, F = 40, 6, 5


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (N + 1, F)).astype(np.float32)  # small numbers: many ties
    queries = rng.integers(-2, 3, (B, F)).astype(np.float32)
    hashes = tie_hash(np.arange(N + 1))
    order = [
        sorted(range(1, N + 1), key=lambda i, q=q: (-float(vectors[i] @ q), hashes[i]))
        for q in queries
    ]
    return vectors, queries, order


@pytest.mark.parametrize("k", [1, 7, N, N + 3])
def test_lists_equal_a_sort(world, k):
    vectors, queries, order = world
    found = retrieve_dense(vectors, queries, k)
    for b in range(B):
        expected = (order[b] + [0] * 5)[:k]
        assert np.asarray(found.items[b]).tolist() == expected
        np.testing.assert_allclose(
            found.scores[b, : min(k, N)], vectors[expected[: min(k, N)]] @ queries[b]
        )
    assert np.asarray(found.scored).tolist() == [N] * B


def test_ranks_with_and_without_excluded_items(world):
    vectors, queries, order = world
    rng = np.random.default_rng(1)
    for _ in range(10):
        targets = rng.integers(1, N + 1, B).astype(np.int32)
        exclude = rng.integers(0, N + 1, (B, 9)).astype(np.int32)
        rank, without = dense_rank(vectors, queries, targets, exclude)
        for b in range(B):
            assert rank[b] == order[b].index(targets[b]) + 1
            left = [i for i in order[b] if i not in exclude[b]]
            assert without[b] == (left.index(targets[b]) + 1 if targets[b] in left else 0)
    np.testing.assert_array_equal(dense_rank(vectors, queries, targets)[1], rank)


def test_a_score_that_is_no_number_ranks_nowhere(world):
    vectors, queries, _ = world
    odd = np.array(queries)
    odd[0] = np.nan
    targets = np.arange(1, B + 1, dtype=np.int32)
    for found, right in zip(
        dense_rank(vectors, odd, targets, targets[:, None] + 1),
        dense_rank(vectors, queries, targets, targets[:, None] + 1),
        strict=True,
    ):
        assert found[0] == 0
        np.testing.assert_array_equal(found[1:], right[1:])
