"""`recjpqprune` gives the very lists of `exact`, and on a skewed catalogue stops early."""

import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, B, K, L, N, World, expect_lists

from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import build_index
from semid_jax.decode.recjpqprune import build_code_lists, retrieve_recjpqprune
from semid_jax.decode.score import Tables, make_query


@pytest.mark.parametrize("kind", KINDS)
def test_recjpqprune_is_exact(kind):
    world = World(kind)
    lists = build_code_lists(world.index)
    for k in (10, N + 20):
        found = retrieve_recjpqprune(world.index, lists, world.query, k)
        expect_lists(found, world, world.scores(), k)


def test_every_place_lists_every_entry_under_its_code():
    world = World()
    lists, n = build_code_lists(world.index), world.index.n_entries
    assert lists.entry.shape == (L + 1, n)
    assert (np.sort(lists.entry, axis=1) == np.arange(n)).all()
    for v in range(K):
        own = np.asarray(lists.entry[2, lists.start[2, v] : lists.start[2, v + 1]])
        np.testing.assert_array_equal(own, np.flatnonzero(world.index.entry_fine[:, 1] == v))


def test_it_stops_where_no_other_code_can_lead_to_the_list():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 50, (1, 2001)).astype(np.int32)
    fine = rng.integers(0, K, (1, 2001, 1)).astype(np.uint8)
    words = rng.normal(size=(1, K, 4)) * 0.1  # the cell decides
    tables = Tables(jnp.asarray(rng.normal(size=(50, 8)), jnp.float32), jnp.asarray(words, "f"))
    index = build_index(coarse, fine, np.zeros((1, 2001)), tables)
    vector = np.append(rng.normal(size=(B, 12)), np.ones((B, 1)), axis=1).astype(np.float32)
    query = make_query(jnp.asarray(vector), tables, jnp.zeros(B, jnp.int32))
    found = retrieve_recjpqprune(index, build_code_lists(index), query, 5)
    exact = retrieve_exact(index, query, 5)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scores, exact.scores)
    assert np.mean(found.scored) < 400
