"""Encoding and decoding against loops over items and digits."""

import jax
import numpy as np
import pytest

from semid_jax.quantize import codebook as books
from semid_jax.quantize.codebook import Codebook


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make(kind, absolute):
    rotation = np.linalg.qr(random(8, 8, seed=3))[0] if kind == "hierarchical" else np.eye(8)
    return Codebook(
        coarse=random(5, 8, seed=1),
        rotation=rotation.astype(np.float32),
        fine=random(4, 6, 2 if kind == "hierarchical" else 8, seed=2),
        kind=kind,
        absolute=absolute,
    )


BOOKS = [("hierarchical", True), ("hierarchical", False), ("residual", False)]


def slow_encode(book, z, cell):
    """One item: its fine codes and the vector they stand for."""
    base = np.zeros(8) if book.absolute else np.asarray(book.coarse[cell], float)
    left, codes, detail = z.astype(float) - base, [], np.zeros(8)
    for j in range(4):
        if book.kind == "hierarchical":
            part = (left @ book.rotation)[2 * j : 2 * j + 2]
            code = ((part - book.fine[j]) ** 2).sum(axis=1).argmin()
            detail += book.rotation[:, 2 * j : 2 * j + 2] @ book.fine[j][code]
        else:
            code = ((left - book.fine[j]) ** 2).sum(axis=1).argmin()
            left = left - book.fine[j][code]
            detail += book.fine[j][code]
        codes.append(code)
    return codes, base + detail


@pytest.mark.parametrize(("kind", "absolute"), BOOKS)
def test_codes_agree_with_a_loop(kind, absolute):
    book, z = make(kind, absolute), random(20, 8)
    coarse, fine = (np.asarray(code) for code in books.encode(book, z))
    assert (coarse.dtype, fine.dtype) == (np.int32, np.uint8)
    decoded = np.asarray(books.decode(book, coarse, fine))
    for i in range(20):
        assert coarse[i] == ((z[i] - book.coarse) ** 2).sum(axis=1).argmin()
        codes, vector = slow_encode(book, z[i], coarse[i])
        np.testing.assert_array_equal(fine[i], codes)
        np.testing.assert_allclose(decoded[i], vector, atol=1e-5)


@pytest.mark.parametrize(("kind", "absolute"), BOOKS)
def test_fine_codes_follow_the_given_cell(kind, absolute):
    book, z = make(kind, absolute), random(20, 8)
    cells = np.arange(20, dtype=np.int32) % 5
    fine = np.asarray(books.encode_fine(book, z, cells))
    for i in range(20):
        np.testing.assert_array_equal(fine[i], slow_encode(book, z[i], cells[i])[0])


@pytest.mark.parametrize(("kind", "absolute"), BOOKS)
def test_arrays_and_back(kind, absolute):
    book = make(kind, absolute)
    again = books.from_arrays(books.to_arrays(book))
    assert jax.tree.structure(again) == jax.tree.structure(book)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(book), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_width_is_refused():
    with pytest.raises(AssertionError, match="shape"):
        books.encode(make("hierarchical", True), random(3, 7))


def test_encoding_works_inside_jit():
    book, z = make("hierarchical", False), random(9, 8)
    inside = jax.jit(lambda z: books.encode(book, z))(z)
    for one, other in zip(inside, books.encode(book, z), strict=True):
        np.testing.assert_array_equal(one, other)
