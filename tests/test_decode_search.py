"""Every search against a slow, obvious numpy version of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.decode.exact import exact_rank, retrieve_exact
from semid_jax.decode.index import Index, build_index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.score import (
    Query,
    Tables,
    item_vectors,
    make_query,
    score_entries,
    score_gathered,
)
from semid_jax.decode.topk import tie_hash

N, A, B, C, D, L, K, d = 300, 3, 7, 12, 8, 4, 16, 5


class World:
    """A small catalogue and a batch of users, with the index and the arrays it came from."""

    def __init__(self, kind: str = "random", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        archetypes = 1 if kind == "one archetype" else A
        coarse = np.repeat(rng.integers(0, C, (1, N + 1)), archetypes, axis=0)
        fine = np.repeat(rng.integers(0, K, (1, N + 1, L)), archetypes, axis=0)
        for a in range(1, archetypes):  # each archetype moves some codes of a third of the items
            moved = rng.random(N + 1) < 0.3
            coarse[a, moved] = rng.integers(0, C, moved.sum())
            fine[a, rng.random((N + 1, L)) < 0.1] = 3
        if kind == "half in one cell":
            coarse[:, : N // 2] = 5
        if kind == "constant codes":
            coarse[:], fine[:] = 2, 1
        tables = Tables(
            jnp.asarray(rng.normal(size=(C, D)), jnp.float32),
            jnp.asarray(rng.normal(size=(L, K, d)), jnp.float32),
        )
        low_rank = rng.normal(size=(C, L, K)).astype(np.float32)
        bias = np.take_along_axis(low_rank[coarse], fine[..., None], axis=-1)[..., 0].sum(-1)
        vector = rng.normal(size=(B, D + L * d + 1)).astype(np.float32)
        if kind == "equal scores":  # a query of zeros leaves the bias, and that is zero
            vector[:], bias = 0, 0 * bias
        vector[:, -1] = 1
        self.coarse, self.fine, self.bias = coarse.astype(np.int32), fine.astype(np.uint8), bias
        self.archetype = rng.integers(0, archetypes, B).astype(np.int32)
        self.tables = tables
        self.query: Query = make_query(jnp.asarray(vector), tables, jnp.asarray(self.archetype))
        self.index: Index = build_index(self.coarse, self.fine, bias, tables)

    def scores(self) -> np.ndarray:
        """float32[B, N + 1], item by item and digit by digit; -inf for item 0."""
        table, digits = np.asarray(self.query.coarse), np.asarray(self.query.fine)
        scores = np.full((B, N + 1), -np.inf, np.float32)
        for b, a in enumerate(self.archetype):
            for i in range(1, N + 1):
                score = table[b, self.coarse[a, i]]
                for j in range(L):
                    score = np.float32(score + digits[b, j, self.fine[a, i, j]])
                scores[b, i] = np.float32(score + np.float32(self.bias[a, i]))
        return scores

    def ranked(self, scores: np.ndarray) -> list[list[int]]:
        """Items of finite score per user, best first, ties by hash."""
        hashes = tie_hash(np.arange(N + 1))
        return [
            sorted(
                (i for i in range(N + 1) if row[i] > -np.inf), key=lambda i: (-row[i], hashes[i])
            )
            for row in scores
        ]


KINDS = ["random", "one archetype", "half in one cell", "constant codes", "equal scores"]


def expect_lists(found, world: World, scores: np.ndarray, k: int) -> None:
    ranked = world.ranked(scores)
    for b in range(B):
        want = ranked[b][:k]
        np.testing.assert_array_equal(found.items[b], want + [0] * (k - len(want)))
        np.testing.assert_array_equal(found.scores[b, : len(want)], scores[b, want])
        assert np.all(np.asarray(found.scores[b, len(want) :]) == -np.inf)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "chunk"), [(10, 8192), (10, 37), (N + 20, 64), (1, 1)])
def test_exact_equals_a_sort_of_all_scores(kind, k, chunk):
    world = World(kind)
    found = retrieve_exact(world.index, world.query, k, chunk)
    expect_lists(found, world, world.scores(), k)
    np.testing.assert_array_equal(found.scored, N)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("probes", "k"), [(1, 10), (3, 10), (3, N), (C, 10), (C + 5, 10)])
def test_inverted_equals_a_sort_inside_the_best_cells(kind, probes, k):
    world = World(kind)
    scores = world.scores()
    best = np.argsort(-np.asarray(world.query.coarse), axis=1, kind="stable")[:, :probes]
    for b, a in enumerate(world.archetype):
        scores[b, ~np.isin(world.coarse[a], best[b])] = -np.inf
    found = retrieve_inverted(world.index, world.query, probes, k)
    expect_lists(found, world, scores, k)
    np.testing.assert_array_equal(found.scored, (scores > -np.inf).sum(axis=1))


def test_inverted_with_all_cells_is_exact():
    world = World()
    exact = retrieve_exact(world.index, world.query, 25, 64)
    inverted = retrieve_inverted(world.index, world.query, C, 25)
    np.testing.assert_array_equal(exact.items, inverted.items)
    np.testing.assert_array_equal(exact.scores, inverted.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_rank_counts_the_items_ahead_with_and_without_excluded_ones(kind):
    world = World(kind)
    rng = np.random.default_rng(3)
    targets = rng.integers(1, N + 1, B).astype(np.int32)
    targets[0] = 0
    exclude = rng.integers(0, N + 1, (B, 40)).astype(np.int32)
    exclude[:, 5] = exclude[:, 6]  # an item chosen twice is one item in the list
    exclude[1, 0] = targets[1]
    exclude[2][exclude[2] == targets[2]] = 0
    rank, kept = exact_rank(world.index, world.query, targets, exclude, chunk=64)
    for b, order in enumerate(world.ranked(world.scores())):
        want = order.index(targets[b]) + 1 if targets[b] else 0
        assert rank[b] == want
        rest = [i for i in order if i not in exclude[b]]
        assert kept[b] == (rest.index(targets[b]) + 1 if targets[b] in rest else 0)
    alone, same = exact_rank(world.index, world.query, targets)
    np.testing.assert_array_equal(alone, rank)
    np.testing.assert_array_equal(same, rank)


def test_rank_agrees_with_the_place_in_the_list():
    world = World("half in one cell")
    found = retrieve_exact(world.index, world.query, N)
    for place in (1, 7, N):
        rank, _ = exact_rank(world.index, world.query, found.items[:, place - 1])
        np.testing.assert_array_equal(rank, place)


@pytest.mark.parametrize("kind", ["random", "constant codes"])
def test_an_item_appears_at_most_once_and_under_its_own_archetypes_id(kind):
    world = World(kind)
    found = retrieve_exact(world.index, world.query, N)
    for row in np.asarray(found.items):
        assert sorted(row) == list(range(1, N + 1))


def test_archetype_changes_the_list():
    world = World()
    other = world.query.replace(archetype=(world.query.archetype + 1) % A)
    one = retrieve_exact(world.index, world.query, 10)
    two = retrieve_exact(world.index, other, 10)
    assert (np.asarray(one.items) != np.asarray(two.items)).any()


def test_score_is_the_inner_product_of_query_and_item_vector():
    world = World()
    vectors = item_vectors(world.tables, world.coarse[0], world.fine[0], world.bias[0])
    query = world.query.replace(archetype=jnp.zeros(B, jnp.int32))
    table = score_entries(query, world.coarse[0], world.fine[0], world.bias[0])
    np.testing.assert_allclose(np.asarray(query.vector) @ np.asarray(vectors).T, table, atol=2e-5)


def test_shared_and_gathered_entries_get_the_same_floats():
    world = World()
    shared = jax.jit(score_entries)(world.query, world.coarse[0], world.fine[0], world.bias[0])
    repeated = [np.repeat(x[None], B, axis=0) for x in (world.coarse[0], world.fine[0])]
    bias = np.repeat(world.bias[:1], B, axis=0)
    gathered = jax.jit(score_gathered)(world.query, *repeated, bias)
    np.testing.assert_array_equal(shared, gathered)


def test_a_query_of_other_tables_is_refused():
    world = World()
    other = world.query.replace(coarse=world.query.coarse[:, :-1])
    with pytest.raises(AssertionError):
        retrieve_exact(world.index, other, 5)
    with pytest.raises(AssertionError):
        make_query(world.query.vector[:, :-1], world.tables, world.query.archetype)
