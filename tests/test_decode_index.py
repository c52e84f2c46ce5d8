"""The index against loops over items and archetypes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from decode_world import KINDS, C, L, N, World

from semid_jax.decode.index import (
    build_index,
    index_arrays,
    index_from_arrays,
    index_report,
    with_scores,
)
from semid_jax.decode.topk import tie_hash
from semid_jax.types import InputError


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_the_distinct_ids_with_their_archetypes(kind):
    world = World(kind)
    index = world.index
    want: dict[tuple, int] = {}
    for a in range(index.n_archetypes):
        for i in range(1, N + 1):
            key = (i, int(world.coarse[a, i]), tuple(world.fine[a, i].tolist()))
            want[key] = want.get(key, 0) | 1 << a
    got = {}
    for e in range(index.n_entries):
        codes = tuple(np.asarray(index.entry_fine[e]).tolist())
        key = (int(index.entry_item[e]), int(index.entry_coarse[e]), codes)
        got[key] = int(index.entry_mask[e])
    assert got == want
    assert len(got) == index.n_entries


@pytest.mark.parametrize("kind", KINDS)
def test_lists_hold_each_item_once_in_its_cell_in_hash_order(kind):
    world = World(kind)
    index = world.index
    items = np.asarray(index.entry_item)
    hashes = tie_hash(np.arange(N + 1))
    for a in range(index.n_archetypes):
        entry_of = np.asarray(index.entry_of[a])
        assert entry_of[0] == -1
        np.testing.assert_array_equal(items[entry_of[1:]], np.arange(1, N + 1))
        np.testing.assert_array_equal(index.entry_bias[entry_of[1:]], world.bias[a, 1:])
        for c in range(C):
            start, end = np.asarray(index.offsets[a, c : c + 2])
            got = items[np.asarray(index.lists[a, start:end])]
            want = [i for i in range(1, N + 1) if world.coarse[a, i] == c]
            assert got.tolist() == sorted(want, key=lambda i: hashes[i])
            assert (np.asarray(index.entry_mask)[entry_of[got]] >> a & 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_hold_the_lists_digit_by_digit(kind):
    index = World(kind).index
    blocks, offsets = index.blocks, np.asarray(index.offsets)
    for a in range(index.n_archetypes):
        for c in range(C):
            own = slice(int(blocks.first[a, c]), int(blocks.first[a, c + 1]))
            there = np.isfinite(blocks.bias[own])
            want = np.asarray(index.lists[a, offsets[a, c] : offsets[a, c + 1]])
            np.testing.assert_array_equal(blocks.entry[own][there], want)
            assert there.ravel()[: len(want)].all()  # gaps are behind
            codes = np.asarray(blocks.fine[own]).transpose(0, 2, 1)[there]
            np.testing.assert_array_equal(codes, np.asarray(index.entry_fine)[want])
            np.testing.assert_array_equal(
                np.asarray(blocks.bias[own])[there], np.asarray(index.entry_bias)[want]
            )
    assert np.isneginf(blocks.bias[-1]).all()
    counts = -np.sort(-np.diff(np.asarray(blocks.first), axis=1), axis=1)
    assert blocks.widths == tuple(counts.cumsum(axis=1).max(axis=0))
    assert index.max_list == np.diff(offsets, axis=1).max()


def test_other_biases_change_the_scores_and_not_the_lists():
    index = World().index
    bias = jnp.arange(index.n_entries, dtype=jnp.float32)
    moved = with_scores(index, index.tables, bias)
    there = np.isfinite(index.blocks.bias)
    np.testing.assert_array_equal(moved.blocks.bias[there], index.blocks.entry[there])
    assert np.isneginf(moved.blocks.bias[~there]).all()
    np.testing.assert_array_equal(moved.entry_bias, bias)


def test_index_comes_back_from_its_arrays():
    index = World().index
    again = index_from_arrays(index_arrays(index))
    assert again.blocks.widths == index.blocks.widths
    for name, array in index_arrays(index).items():
        np.testing.assert_array_equal(array, index_arrays(again)[name])


def test_report_counts_entries_and_balance():
    world = World("half in one cell")
    report = index_report(world.index)
    assert report["entries_per_item"] == world.index.n_entries / N
    counts = [np.bincount(row[1:], minlength=C) for row in world.coarse]
    for a, sizes in enumerate(counts):
        assert report[f"balance_{a}"] == pytest.approx(sizes.max() * C / N)
    assert report["balance"] == pytest.approx(max(sizes.max() for sizes in counts) * C / N)
    assert report["empty_lists"] == pytest.approx(np.mean(np.stack(counts) == 0))
    assert index_report(World("one archetype").index)["entries_per_item"] == 1.0


def test_wrong_codes_and_shapes_are_refused_in_one_line():
    world = World()
    many = [np.repeat(x[:1], 33, axis=0) for x in (world.coarse, world.fine, world.bias)]
    cases = {
        "33 archetypes": many,
        r"coarse has a code outside 0\.\.11": [world.coarse + 1, world.fine, world.bias],
        r"fine has a code outside 0\.\.15": [world.coarse, world.fine + 9, world.bias],
        "do not fit": [world.coarse, world.fine[:, :, : L - 1], world.bias],
        "fine is int32": [world.coarse, world.fine.astype(np.int32), world.bias],
        "bias is not finite": [world.coarse, world.fine, world.bias * np.nan],
        "no item": [world.coarse[:, :1], world.fine[:, :1], world.bias[:, :1]],
    }
    for message, arrays in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            build_index(*arrays, world.tables)
        assert "\n" not in str(caught.value)
