"""`pruned` gives the very lists of `exact`, whatever the catalogue, and scores less of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, World, large

from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.leaf_order import leaf_order
from semid_jax.decode.pruned import block_bounds, retrieve_pruned
from semid_jax.decode.score import make_query
from semid_jax.decode.sketch import Shape, build_bounds


@pytest.fixture
def few_users(monkeypatch):
    """Few users are searched for as many are; what is compiled so is forgotten afterwards."""
    monkeypatch.setattr("semid_jax.decode.pruned.LEAST", 1)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rank", "block", "chunk"), [(3, 8, 50), (29, 16, 4096)])
def test_pruned_is_exact(kind, rank, block, chunk, few_users, monkeypatch):
    monkeypatch.setattr("semid_jax.decode.pruned.PAYS", 2.0)  # even where it does not pay
    world = World(kind)
    sketch = build_bounds(world.index, np.asarray(world.query.vector), Shape(rank, block))
    exact = retrieve_exact(world.index, world.query, 10)
    found = retrieve_pruned(world.index, sketch, world.query, 10, chunk, blocks=2, users=3)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scores, exact.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_is_above_its_blocks_bound(kind):
    world = World(kind)
    rng = np.random.default_rng(1)
    fitted = rng.normal(size=(50, world.query.vector.shape[1]))  # unlike the queries
    scores = world.scores()
    for rank, chunk in ((2, 40), (10, 10_000)):
        sketch = build_bounds(world.index, fitted, Shape(rank, 8))
        bound = np.asarray(block_bounds(sketch, world.query, chunk))
        items = np.asarray(sketch.blocks.item)
        mask = np.asarray(sketch.blocks.mask).reshape(-1, 8)
        for b, a in enumerate(world.archetype):
            own = (mask >> a) & 1 == 1
            largest = np.where(own, scores[b][items], -np.inf).max(axis=1)
            assert (bound[b] >= largest).all()


def test_of_a_large_catalogue_little_is_scored():
    index, query = large()
    sketch = build_bounds(index, np.asarray(query.vector), Shape(8, 32))
    exact = retrieve_exact(index, query, 10)
    found = retrieve_pruned(index, sketch, query, 10)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scores, exact.scores)
    assert np.mean(found.scored) < 0.15 * index.n_items
    # Queries that it was not fitted on: looser, never wrong.
    rng = np.random.default_rng(5)
    vector = rng.normal(size=query.vector.shape).astype(np.float32)
    vector[:, -1] = 1
    odd = make_query(jnp.asarray(vector), index.tables, query.archetype)
    np.testing.assert_array_equal(
        retrieve_pruned(index, sketch, odd, 10).items, retrieve_exact(index, odd, 10).items
    )


def test_where_it_does_not_pay_everything_is_scored(few_users):
    world = World("constant codes")
    sketch = build_bounds(world.index, np.asarray(world.query.vector), Shape(4, 32))
    found = retrieve_pruned(world.index, sketch, world.query, 10)
    exact = retrieve_exact(world.index, world.query, 10)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scored, exact.scored)


@pytest.mark.parametrize("block", [2, 32])
def test_more_items_than_there_are(block, few_users, monkeypatch):
    monkeypatch.setattr("semid_jax.decode.pruned.PAYS", 2.0)
    world = World("one archetype")
    sketch = build_bounds(world.index, np.asarray(world.query.vector), Shape(4, block))
    exact = retrieve_exact(world.index, world.query, 450)
    found = retrieve_pruned(world.index, sketch, world.query, 450)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scored, exact.scored)


def test_leaves_keep_groups_and_put_alike_points_together():
    rng = np.random.default_rng(2)
    points, group = rng.normal(size=(700, 3)).astype("f"), rng.integers(0, 3, 700)
    order, real = leaf_order(points, group, 16)
    np.testing.assert_array_equal(np.sort(order[real]), np.arange(700))
    assert (group[order] == group[order[:, :1]]).all()
    assert (np.diff(group[order[:, 0]]) >= 0).all()
    assert len(order) == sum(-(-np.sum(group == g) // 16) for g in range(3))
    spread = np.mean(
        [points[rows[there]].var(axis=0).sum() for rows, there in zip(order, real, strict=True)]
    )
    assert spread < 0.25 * points.var(axis=0).sum()


def test_a_cut_is_across_the_direction_of_most_variance():
    rng = np.random.default_rng(3)
    long = rng.normal(size=(64, 1)) * np.array([[1.0, 1.0, -1.0]])
    points = (long + 0.05 * rng.normal(size=(64, 3))).astype("f")
    order, _ = leaf_order(points, np.zeros(64, int), 32)
    along = long[:, 0][order]
    assert along[0].max() < along[1].min() or along[1].max() < along[0].min()
