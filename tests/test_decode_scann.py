"""ScaNN on our cells against exact search inside the same cells."""

from __future__ import annotations

import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import A, B, C, N, World

from semid_jax.decode import scann_search
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.scann_search import ScannSearcher
from semid_jax.types import InputError

needs_scann = pytest.mark.skipif(not scann_search.available(), reason="scann is for Linux only")


@needs_scann
@pytest.mark.parametrize("kind", ["random", "one archetype", "half in one cell"])
@pytest.mark.parametrize(("probes", "k"), [(3, 10), (1, 60), (C + 5, N + 20)])
def test_recall_is_one_inside_the_same_cells(kind, probes, k, tmp_path):
    world = World(kind)
    found = ScannSearcher.build(world.index, tmp_path / "scann").retrieve(world.query, probes, k)
    scores = world.inside_best_cells(world.scores(), probes)
    ranked = world.ranked(scores)
    for b in range(B):
        want = ranked[b][:k]
        items = np.asarray(found.items[b])
        assert set(items[: len(want)]) == set(want)
        np.testing.assert_allclose(found.scores[b, : len(want)], scores[b, want], atol=1e-4)
        assert not items[len(want) :].any()
        assert np.all(np.asarray(found.scores[b, len(want) :]) == -np.inf)
    np.testing.assert_array_equal(found.scored, (scores > -np.inf).sum(axis=1))


@needs_scann
@pytest.mark.parametrize("kind", ["constant codes", "equal scores"])
def test_ties_give_distinct_items_of_the_right_score(kind, tmp_path):
    world = World(kind)
    found = ScannSearcher.build(world.index, tmp_path / "scann").retrieve(world.query, C, 10)
    for b, row in enumerate(np.asarray(found.items)):
        assert len(set(row)) == 10
        np.testing.assert_allclose(found.scores[b], world.scores()[b, row], atol=1e-4)


@needs_scann
def test_a_whole_list_of_ties_is_in_the_order_of_inverted(tmp_path):
    world = World("equal scores")
    found = ScannSearcher.build(world.index, tmp_path / "scann").retrieve(world.query, C, N)
    inverted = retrieve_inverted(world.index, world.query, C, N)
    np.testing.assert_array_equal(found.items, inverted.items)


@needs_scann
def test_loaded_searcher_answers_as_the_built_one(tmp_path):
    world = World()
    built = ScannSearcher.build(world.index, tmp_path / "scann").retrieve(world.query, 4, 10)
    (tmp_path / "scann").rename(tmp_path / "moved")  # no absolute path is kept inside
    loaded = ScannSearcher.load(world.index, tmp_path / "moved").retrieve(world.query, 4, 10)
    np.testing.assert_array_equal(built.items, loaded.items)
    np.testing.assert_array_equal(built.scores, loaded.scores)


@needs_scann
def test_an_archetype_without_users_is_no_matter(tmp_path):
    world = World()
    query = world.query.replace(archetype=jnp.full(B, A - 1, jnp.int32))
    found = ScannSearcher.build(world.index, tmp_path / "scann").retrieve(query, 3, 10)
    inverted = retrieve_inverted(world.index, query, 3, 10)
    np.testing.assert_array_equal(found.items, inverted.items)


@needs_scann
def test_other_index_torn_file_and_pickle_are_refused(tmp_path):
    directory = tmp_path / "scann"
    ScannSearcher.build(World().index, directory)
    with pytest.raises(InputError, match="scann: built from another index; delete it"):
        ScannSearcher.load(World(seed=1).index, directory)
    pickle = directory / "archetype_0" / "scann_docids.pkl"
    pickle.write_bytes(b"")
    with pytest.raises(InputError, match="never loaded"):
        ScannSearcher.load(World().index, directory)
    pickle.unlink()
    data = directory / "archetype_1" / "dataset.npy"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"dataset\.npy"):
        ScannSearcher.load(World().index, directory)


@needs_scann
def test_building_is_silent_and_leaves_no_pickle(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ScannSearcher.build(World().index, tmp_path / "scann")
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "scann").rglob("*.pkl"))
    assert json.loads((tmp_path / "scann" / "manifest.json").read_text())["kind"] == "scann"


def test_a_missing_scann_is_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(scann_search, "available", lambda: False)
    with pytest.raises(InputError, match="scann is not installed"):
        ScannSearcher.build(World().index, tmp_path / "scann")
    assert not (tmp_path / "scann").exists()
