"""`pruned` gives the very lists of `exact`, whatever the catalogue, and scores less of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, K, L, World, d

from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import build_index
from semid_jax.decode.pruned import block_bounds, retrieve_pruned
from semid_jax.decode.score import Tables, make_query
from semid_jax.decode.sketch import build_sketch, kd_order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rank", "block", "chunk"), [(3, 8, 50), (29, 16, 4096)])
def test_pruned_is_exact(kind, rank, block, chunk, monkeypatch):
    monkeypatch.setattr("semid_jax.decode.pruned.PAYS", 2.0)  # even where it does not pay
    monkeypatch.setattr("semid_jax.decode.pruned.LEAST", 1)
    jax.clear_caches()
    world = World(kind)
    sketch = build_sketch(world.index, np.asarray(world.query.vector), rank, block)
    exact = retrieve_exact(world.index, world.query, 10)
    found = retrieve_pruned(world.index, sketch, world.query, 10, chunk, blocks=2, users=3)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scores, exact.scores)
    jax.clear_caches()


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_is_above_its_blocks_bound(kind):
    world = World(kind)
    rng = np.random.default_rng(1)
    fitted = rng.normal(size=(50, world.query.vector.shape[1]))  # unlike the queries
    scores = world.scores()
    for rank, chunk in ((2, 40), (10, 10_000)):
        sketch = build_sketch(world.index, fitted, rank, 8)
        bound = np.asarray(block_bounds(sketch, world.query, chunk))
        items = np.asarray(sketch.item)
        mask = np.asarray(sketch.mask).reshape(-1, 8)
        for b, a in enumerate(world.archetype):
            own = (mask >> a) & 1 == 1
            largest = np.where(own, scores[b][items], -np.inf).max(axis=1)
            assert (bound[b] >= largest).all()


def large(seed=0, items=20_000, topics=40):
    """A catalogue like a quantised one: items of a cell have alike codes, and so have queries."""
    rng = np.random.default_rng(seed)
    usual = rng.integers(0, K, (topics, L))
    coarse = rng.integers(0, topics, (1, items + 1))
    fine = usual[coarse]
    moved = rng.random(fine.shape) < 0.3
    fine[moved] = rng.integers(0, K, moved.sum())
    words = rng.normal(size=(L, K, d)).astype(np.float32)
    tables = Tables(jnp.asarray(rng.normal(size=(topics, 8)), jnp.float32), jnp.asarray(words))
    bias = 0.1 * rng.normal(size=(1, items + 1))
    index = build_index(coarse.astype(np.int32), fine.astype(np.uint8), bias, tables)
    basis = rng.normal(size=(4, 8 + L * d))
    vector = rng.normal(size=(64, 4)) @ basis
    vector = np.concatenate([vector, np.ones((64, 1))], axis=1).astype(np.float32)
    return index, make_query(jnp.asarray(vector), tables, jnp.zeros(64, jnp.int32))


def test_of_a_large_catalogue_little_is_scored():
    index, query = large()
    sketch = build_sketch(index, np.asarray(query.vector), 8)
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


def test_where_it_does_not_pay_everything_is_scored(monkeypatch):
    monkeypatch.setattr("semid_jax.decode.pruned.LEAST", 1)
    jax.clear_caches()
    world = World("constant codes")
    sketch = build_sketch(world.index, np.asarray(world.query.vector), 4)
    found = retrieve_pruned(world.index, sketch, world.query, 10)
    exact = retrieve_exact(world.index, world.query, 10)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scored, exact.scored)


def test_more_items_than_there_are(monkeypatch):
    monkeypatch.setattr("semid_jax.decode.pruned.LEAST", 1)
    jax.clear_caches()
    world = World("one archetype")
    sketch = build_sketch(world.index, np.asarray(world.query.vector), 4)
    found = retrieve_pruned(world.index, sketch, world.query, 320)
    exact = retrieve_exact(world.index, world.query, 320)
    np.testing.assert_array_equal(found.items, exact.items)


def test_a_kd_order_keeps_groups_and_puts_alike_points_together():
    rng = np.random.default_rng(2)
    points, group = rng.normal(size=(700, 3)).astype("f"), rng.integers(0, 3, 700)
    order = kd_order(points, group, 16)
    np.testing.assert_array_equal(np.sort(order), np.arange(700))
    assert (np.diff(group[order]) >= 0).all()

    def spread(order):
        return np.mean([points[order[at : at + 8]].var(axis=0).sum() for at in range(0, 700, 8)])

    assert spread(order) < 0.4 * spread(np.arange(700))
