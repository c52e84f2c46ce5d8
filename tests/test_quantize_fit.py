"""The whole fit: limits kept in every column, training items only, equal columns equal."""

import dataclasses

import numpy as np
import pytest

from semid_jax import types
from semid_jax.quantize import codebook as books
from semid_jax.quantize import fit as fitting
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.fit import fit

CONFIG = QuantizeConfig(digits=4, codewords=16, iterations=6, rotation_iterations=2)


def world(items=150, archetypes=3, width=8, seed=0):
    """Clustered vectors seen under several weightings of two modalities; row 0 is not finite."""
    generator = np.random.default_rng(seed)
    topics = generator.integers(0, 5, items + 1)
    parts = generator.normal(size=(2, 5, width))[:, topics] * 2.0
    parts = parts + generator.normal(size=(2, items + 1, width))
    weights = generator.dirichlet(np.ones(2), archetypes)
    points = np.einsum("am,mnd->and", weights, parts).astype(np.float32)
    points[:, 0] = np.nan
    train = generator.random(items + 1) < 0.8
    return points, train


def same(one, other):
    for a, b in zip(one[1:], other[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    arrays, others = books.to_arrays(one[0]), books.to_arrays(other[0])
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])


@pytest.mark.parametrize(
    "change",
    [{}, {"fine": "residual"}, {"kind": "residual", "digits": 2}],
    ids=["absolute", "residual", "levels"],
)
def test_ids_fit_the_vectors(change):
    config = dataclasses.replace(CONFIG, **change)
    points, train = world()
    book, coarse, fine = fit(points, train, config)
    assert coarse.shape == (3, 151)
    assert coarse.dtype == np.int32
    assert fine.shape == (3, 151, config.digits)
    assert fine.dtype == np.uint8
    assert not coarse[:, 0].any()
    assert not fine[:, 0].any()
    assert (book.cells, book.codewords, book.digits) == (12, 16, config.digits)
    assert book.absolute == (not change)
    for column in range(3):
        z = points[column, 1:]
        assert np.bincount(coarse[column, 1:], minlength=12).max() <= 2 * 150 / 12
        np.testing.assert_array_equal(
            books.encode_fine(book, z, coarse[column, 1:]), fine[column, 1:]
        )
        decoded = np.asarray(books.decode(book, coarse[column, 1:], fine[column, 1:]))
        assert ((z - decoded) ** 2).sum() < 0.4 * ((z - z.mean(axis=0)) ** 2).sum()


def test_digits_are_found_some_items_at_a_time_as_all_at_once(monkeypatch):
    points, train = world()
    book, coarse, fine = fit(points, train, CONFIG)
    monkeypatch.setattr(fitting, "ROWS", 7)
    for found, expected in zip(
        fitting.encode_items(book, points, CONFIG.balance), (coarse, fine), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_one_digit_is_of_the_items_own_coordinates():
    points, train = world()
    book, coarse, fine = fit(points, train, dataclasses.replace(CONFIG, digits=1, codewords=64))
    np.testing.assert_array_equal(book.rotation, np.eye(points.shape[-1]))
    z = points[0, 1:]
    np.testing.assert_array_equal(books.encode_fine(book, z, coarse[0, 1:]), fine[0, 1:])
    left = z - np.asarray(book.fine)[0, fine[0, 1:, 0]]
    assert (left**2).sum() < 0.5 * ((z - z.mean(axis=0)) ** 2).sum()


def test_the_same_twice():
    points, train = world()
    same(fit(points, train, CONFIG), fit(points, train, CONFIG))


def test_equal_columns_get_equal_codes():
    points, train = world()
    points[2] = points[0]
    _, coarse, fine = fit(points, train, CONFIG)
    np.testing.assert_array_equal(coarse[2], coarse[0])
    np.testing.assert_array_equal(fine[2], fine[0])
    assert (fine[1] != fine[0]).any()


def test_copies_of_one_column_are_the_static_tokenizer():
    points, train = world(archetypes=1)
    one = fit(points, train, CONFIG)
    many = fit(np.repeat(points, 4, axis=0), train, CONFIG)
    same(one, (many[0], many[1][:1], many[2][:1]))
    np.testing.assert_array_equal(many[1], np.repeat(one[1], 4, axis=0))


def test_only_training_items_shape_the_codebook():
    points, train = world()
    other = points.copy()
    other[:, ~train] += 3.0
    other[:, 0] = np.nan
    one, two = fit(points, train, CONFIG), fit(other, train, CONFIG)
    for name, array in books.to_arrays(one[0]).items():
        np.testing.assert_array_equal(array, books.to_arrays(two[0])[name])


def test_the_mark_of_the_padding_row_is_ignored():
    points, train = world()
    train[0] = True
    with_row = fit(points, train, CONFIG)
    train[0] = False
    same(with_row, fit(points, train, CONFIG))


def test_few_points_have_few_codewords():
    points, train = world(items=20, archetypes=1)
    train[:] = True
    book, coarse, fine = fit(points, train, QuantizeConfig(digits=4))
    assert (book.codewords, book.cells) == (20 // 4, 4)
    assert fine.max() < 5
    assert coarse.max() < 4


def test_one_training_item_is_enough():
    points, train = world(items=6, archetypes=1)
    train[:] = False
    train[3] = True
    book, coarse, _ = fit(points, train, CONFIG)
    assert (book.cells, book.codewords) == (1, 1)
    assert not coarse.any()


def test_a_sample_is_enough_to_fit_on():
    points, train = world(items=400)
    book, coarse, _ = fit(points, train, dataclasses.replace(CONFIG, max_points=300))
    assert book.codewords == 16
    assert np.bincount(coarse[0, 1:]).max() <= 2 * 400 / book.cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "flat"}, "quantize.kind: 'flat' is not one of hierarchical, residual"),
        ({"fine": "both"}, "quantize.fine: 'both' is not one of absolute, residual"),
        ({"codewords": 257}, "quantize.codewords: 257 is outside 1..256"),
        ({"digits": 3}, "quantize.digits: 3 does not divide the model width 8"),
        ({"digits": 4, "shared": 1}, "quantize.digits: 3 does not divide the model width 8"),
        ({"digits": 4, "shared": 4}, "quantize.shared: 4 of 4 digits"),
        ({"digits": 0}, "quantize.digits: 0, needs at least 1"),
        ({"cells": -1}, "quantize.cells: -1"),
        ({"balance": 0.5}, "quantize.balance: 0.5, needs at least 1"),
        ({"iterations": 0}, "quantize.iterations: 0, needs at least 1"),
        ({"max_points": 0}, "quantize.max_points: 0, needs at least 1"),
        ({"rotation_iterations": -1}, "quantize.rotation_iterations: -1"),
    ],
)
def test_settings_that_cannot_be(change, message):
    points, train = world(items=10)
    with pytest.raises(types.InputError, match=message):
        fit(points, train, dataclasses.replace(CONFIG, **change))


def test_points_that_cannot_be():
    points, train = world(items=10)
    with pytest.raises(types.InputError, match="train_items: no item"):
        fit(points, np.zeros_like(train), CONFIG)
    points[1, 4, 2] = np.inf
    with pytest.raises(types.InputError, match="item vectors: not finite"):
        fit(points, train, CONFIG)
