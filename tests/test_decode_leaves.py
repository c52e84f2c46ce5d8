"""`leaves` against slow, obvious searches of the same items."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, B, N, World, expect_lists, large

from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.leaves import leaf_places, leaf_scores, retrieve_leaves
from semid_jax.decode.sketch import (
    Shape,
    build_leaves,
    build_sketch,
    sketch_arrays,
    sketch_from_arrays,
)
from semid_jax.turns import BYTES
from semid_jax.types import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_all_leaves_hold_all_items(kind):
    world = World(kind)
    sketch = build_leaves(world.index, np.asarray(world.query.vector), Shape(6, 8))
    found = retrieve_leaves(world.index, sketch, world.query, 10_000, 10)
    scores = world.scores()
    expect_lists(found, world, scores, 10)
    np.testing.assert_array_equal(found.scored, (scores > -np.inf).sum(axis=1))


def test_no_leaf_is_given_up_for_one_that_other_archetypes_have():
    world = World("random")
    sketch = build_leaves(
        world.index, np.asarray(world.query.vector), Shape(6, 1)
    )  # a leaf, an entry
    count = int((world.scores() > -np.inf).sum(axis=1)[0])
    found = retrieve_leaves(world.index, sketch, world.query, count, 10)
    np.testing.assert_array_equal(found.scored, count)


@pytest.mark.parametrize("kind", ["random", "one archetype", "half in one cell"])
@pytest.mark.parametrize("leaves", [1, 3, 20])
def test_as_many_leaves_hold_the_items_whose_place_is_no_further(kind, leaves):
    world = World(kind)
    sketch = build_leaves(world.index, np.asarray(world.query.vector), Shape(6, 8))
    found = retrieve_leaves(world.index, sketch, world.query, leaves, N)
    items = jnp.tile(jnp.arange(N + 1, dtype=jnp.int32), (B, 1))
    places = np.asarray(leaf_places(world.index, sketch, world.query, items))
    for user in range(B):
        inside = np.flatnonzero((places[user] > 0) & (places[user] <= leaves))
        assert set(inside) == set(np.asarray(found.items[user])) - {0}
    assert np.all(places[:, 0] == 0)


def test_leaves_of_equal_worth_are_all_read_before_an_item_is_sure_to_be_found():
    world = World("equal scores")
    sketch = build_leaves(world.index, np.asarray(world.query.vector), Shape(6, 1))
    sketch = dataclasses.replace(sketch, leaf=0 * sketch.leaf)
    there = world.scores() > -np.inf
    items = jnp.tile(jnp.arange(N + 1, dtype=jnp.int32), (B, 1))
    places = np.asarray(leaf_places(world.index, sketch, world.query, items))
    np.testing.assert_array_equal(places, np.where(there, there.sum(axis=1, keepdims=True), 0))


def test_a_leaf_is_judged_by_its_mean_and_deviation():
    world = World("one archetype")
    index, query = world.index, world.query
    vectors = np.asarray(query.vector)
    whole = vectors.shape[1]
    sketch = build_leaves(index, vectors, Shape(whole, 8))
    guess = np.asarray(leaf_scores(sketch, query))
    blocks = sketch.blocks
    items, real = np.asarray(blocks.item), np.asarray(blocks.mask).reshape(-1, 8) > 0
    # With all coordinates the means are those of S1, but for a constant of the user.
    scores = np.where(real, world.scores()[:, items], 0)
    mean = scores.sum(axis=2) / real.sum(axis=1)
    from_mean = np.where(real, scores - mean[:, :, None], 0)
    variance = np.mean((from_mean**2).sum(axis=2) / real.sum(axis=1), axis=0)
    constant = guess - mean - 2.0 * np.sqrt(variance)
    np.testing.assert_allclose(constant, constant[:, :1] + 0 * mean, atol=2e-3)


@pytest.mark.parametrize("method", ["leaves", "pruned"])
def test_what_a_search_reads_is_an_artefact(method):
    world = World("random")
    sketch = build_sketch(method, world.index, np.asarray(world.query.vector), Shape(4, 8))
    arrays = sketch_arrays(sketch)
    jax.tree.map(np.testing.assert_array_equal, sketch_from_arrays(method, arrays), sketch)
    other = {"leaves": "pruned", "pruned": "leaves"}[method]
    with pytest.raises(InputError, match=f"index/{other}: made by another version; run"):
        sketch_from_arrays(other, arrays)


def test_leaves_of_a_large_catalogue_find_more_than_cells_and_score_less():
    index, query = large()
    sketch = build_leaves(index, np.asarray(query.vector), Shape(8, 16))
    exact = np.asarray(retrieve_exact(index, query, 10).items)

    def recall(found):
        return np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.items, strict=True)])

    leaves = retrieve_leaves(index, sketch, query, 30, 10)
    cells = retrieve_inverted(index, query, 2, 10)
    assert np.mean(leaves.scored) < np.mean(cells.scored)
    assert recall(leaves) > max(0.9, recall(cells))


def test_users_in_turns_are_the_same(monkeypatch):
    index, query = large(items=2000)
    sketch = build_leaves(index, np.asarray(query.vector), Shape(8, 16))
    one = retrieve_leaves(index, sketch, query, 12, 10)
    monkeypatch.setitem(BYTES, "cpu", 10_000)
    several = retrieve_leaves(index, sketch, query, 12, 11)
    np.testing.assert_array_equal(one.items, several.items[:, :10])
    assert jnp.all(one.scored == several.scored)
