"""Every search against a slow, obvious numpy version of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, A, B, C, L, N, World, expect_lists

from semid_jax.decode.exact import cell_masses, exact_rank, retrieve_exact
from semid_jax.decode.exact_matmul import retrieve_exact_matmul
from semid_jax.decode.inverted import cell_places, retrieve_inverted
from semid_jax.decode.score import item_vectors, make_query, score_entries, score_gathered
from semid_jax.turns import BYTES


@pytest.mark.parametrize(
    ("kind", "k", "chunk"), [*((kind, 10, 37) for kind in KINDS), ("random", N + 20, 1000)]
)
def test_exact_equals_a_sort_of_all_scores(kind, k, chunk):
    world = World(kind)
    found = retrieve_exact(world.index, world.query, k, chunk)
    expect_lists(found, world, world.scores(), k)
    np.testing.assert_array_equal(found.scored, N)


@pytest.mark.parametrize(
    ("kind", "probes", "k"), [*((kind, 3, 10) for kind in KINDS), ("random", 1, N)]
)
def test_inverted_equals_a_sort_inside_the_best_cells(kind, probes, k):
    world = World(kind)
    scores = world.inside_best_cells(world.scores(), probes)
    found = retrieve_inverted(world.index, world.query, probes, k)
    expect_lists(found, world, scores, k)
    np.testing.assert_array_equal(found.scored, (scores > -np.inf).sum(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_place_of_an_item_is_that_of_its_cell_among_the_users_cells(kind):
    world = World(kind)
    items = np.tile(np.arange(N + 1, dtype=np.int32), (B, 1))
    cells = np.argsort(-np.asarray(world.query.coarse), axis=1, kind="stable")
    want = [
        [0, *(1 + cells[b].tolist().index(world.coarse[a, i]) for i in range(1, N + 1))]
        for b, a in enumerate(world.archetype)
    ]
    np.testing.assert_array_equal(cell_places(world.index, world.query, jnp.asarray(items)), want)


def test_users_searched_for_in_turns_find_the_same(monkeypatch):
    world = World()
    together = retrieve_inverted(world.index, world.query, 3, 10)
    jax.clear_caches()
    monkeypatch.setitem(BYTES, "cpu", 3 * 64 * L * 2)  # two users
    turns = retrieve_inverted(world.index, world.query, 3, 10)
    jax.clear_caches()
    for one, other in zip(jax.tree.leaves(turns), jax.tree.leaves(together), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inverted_with_all_cells_is_exact():
    world = World()
    exact = retrieve_exact(world.index, world.query, 25, 64)
    inverted = retrieve_inverted(world.index, world.query, C + 5, 25)
    np.testing.assert_array_equal(exact.items, inverted.items)
    np.testing.assert_array_equal(exact.scores, inverted.scores)


@pytest.mark.parametrize("kind", ["random", "half in one cell", "equal scores"])
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


def test_a_score_that_is_no_number_ranks_nowhere():
    world = World()
    odd = make_query(world.query.vector.at[0].set(jnp.nan), world.tables, world.query.archetype)
    targets = np.arange(1, B + 1, dtype=np.int32)
    for seen in (None, np.full((B, 2), N, np.int32)):
        for found, right in zip(
            exact_rank(world.index, odd, targets, seen),
            exact_rank(world.index, world.query, targets, seen),
            strict=True,
        ):
            assert found[0] == 0
            np.testing.assert_array_equal(found[1:], right[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [64, 8192])
def test_cell_masses_are_sums_of_the_softmax_over_items(kind, chunk):
    world = World(kind)
    scores = world.scores().astype(float)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.zeros((B, C))
    for b, a in enumerate(world.archetype):
        np.add.at(expected[b], world.coarse[a], p[b])
    found = cell_masses(world.index, world.query, chunk)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_items_are_listed_once_in_the_order_of_their_ranks():
    world = World()
    found = retrieve_exact(world.index, world.query, N)
    for row in np.asarray(found.items):
        assert sorted(row) == list(range(1, N + 1))
    for place in (1, 7, N):
        rank, same = exact_rank(world.index, world.query, found.items[:, place - 1])
        np.testing.assert_array_equal(rank, place)
        np.testing.assert_array_equal(same, place)


def test_archetype_changes_the_list():
    world = World()
    other = world.query.replace(archetype=(world.query.archetype + 1) % A)
    one = retrieve_exact(world.index, world.query, 10)
    two = retrieve_exact(world.index, other, 10)
    assert (np.asarray(one.items) != np.asarray(two.items)).any()


def test_a_batch_of_one_archetype_is_searched_among_its_own_entries():
    world = World()
    mixed = exact_rank(world.index, world.query, jnp.arange(1, B + 1))[0]
    found = retrieve_exact(world.index, world.query, 10, 37)
    for a in range(A):
        query = world.query.replace(archetype=jnp.full(B, a, jnp.int32))
        alone = retrieve_exact(world.index, query, 10, 37)
        rank, _ = exact_rank(world.index, query, jnp.arange(1, B + 1))
        users = world.archetype == a
        np.testing.assert_array_equal(alone.items[users], found.items[users])
        np.testing.assert_array_equal(alone.scores[users], found.scores[users])
        np.testing.assert_array_equal(rank[users], mixed[users])


@pytest.mark.parametrize("kind", ["random", "half in one cell"])
def test_matrix_product_finds_what_look_ups_find(kind):
    world = World(kind)
    scores = world.scores()
    found = retrieve_exact_matmul(world.index, world.query, 10, 100)
    ranked = world.ranked(scores)
    for b in range(B):
        np.testing.assert_allclose(found.scores[b], scores[b, ranked[b][:10]], atol=1e-4)
        np.testing.assert_allclose(found.scores[b], scores[b, found.items[b]], atol=1e-4)
        assert len(set(np.asarray(found.items[b]))) == 10
    np.testing.assert_array_equal(found.scored, N)


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


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_searches_lower_for_every_platform(platform):
    world = World()

    def search(index, query):
        return (
            retrieve_exact(index, query, 10, 100),
            retrieve_exact_matmul(index, query, 10, 100),
            retrieve_inverted(index, query, 3, 10),
            exact_rank(index, query, jnp.ones(B, jnp.int32)),
        )

    lowered = jax.export.export(jax.jit(search), platforms=[platform])(world.index, world.query)
    assert lowered.platforms == (platform,)
