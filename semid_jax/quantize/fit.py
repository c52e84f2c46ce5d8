"""Fits the codebook on the union of archetypes and gives every item its ID in every column."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import numpy as np

from semid_jax import types
from semid_jax.quantize import balanced, codebook, kmeans, opq
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import QuantizeConfig, check

# Fewer points than this per codeword, and a codeword is little more than a copy of a point.
POINTS_PER_CODEWORD = 4
# Plain k-means does the long way; the limit on sizes then moves only the borders.
BALANCED_ITERATIONS = 8
ROWS = 1 << 17  # items whose digits are found at once: what it takes is several times their size


def fit(
    points: np.ndarray, train_items: np.ndarray, config: QuantizeConfig
) -> tuple[Codebook, np.ndarray, np.ndarray]:
    """Fits the codebook on training items under all archetypes and encodes all items.

    Digits that archetypes share are not its business, see `fit_shared`: L is the number of others.

    Args:
      points: f32[A, N + 1, D], z of each item under each archetype; row 0 is padding.
      train_items: bool[N + 1], items that the codebook may see.
      config: settings.

    Returns:
      (codebook, coarse int32[A, N + 1], fine uint8[A, N + 1, L]), see `fit_book`, `encode_items`.

    Raises:
      InputError: a setting that no codebook can have, or points that are not finite.
    """
    points = np.asarray(points, np.float32)
    book = fit_book(points, train_items, config)
    return book, *encode_items(book, points, config.balance)


def fit_book(points: np.ndarray, train_items: np.ndarray, config: QuantizeConfig) -> Codebook:
    """Fits the codebook on training items under all archetypes.

    With n distinct columns times training items (at most `max_points`), K is
    min(codewords, max(1, n // 4)) and C at most the number of training items.

    Args:
      points: f32[A, N + 1, D].
      train_items: bool[N + 1].
      config: settings.

    Raises:
      InputError: a setting that no codebook can have, or points that are not finite.
    """
    chex.assert_rank(points, 3)
    chex.assert_shape(train_items, (points.shape[1],))
    _, rows, width = points.shape
    check(config, width)
    if not np.isfinite(points[:, 1:]).all():
        raise types.InputError("item vectors: not finite, so the tokenizer diverged; train it anew")
    train = np.flatnonzero(train_items[1:]) + 1
    if not len(train):
        raise types.InputError("train_items: no item to fit the codebook on; check the split")

    sample = sample_points(points, np.unique(distinct_columns(points)), train, config)
    cells = count_cells(rows - 1, len(train), config)
    codewords = max(1, min(config.codewords, len(sample) // POINTS_PER_CODEWORD))
    coarse_words, cell = fit_cells(sample, cells, config)
    return fit_fine(sample, coarse_words, cell, codewords, config)


def encode_items(
    book: Codebook, points: np.ndarray, balance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gives every item its ID in every column.

    Args:
      book: the codebook.
      points: f32[A, N + 1, D].
      balance: largest list of a column over the mean list.

    Returns:
      (coarse int32[A, N + 1], fine uint8[A, N + 1, L]). In every column no cell has more than
      `balance` times the mean, rounded up; equal columns have equal codes; row 0 is all zero.
    """
    archetypes, rows, _ = points.shape
    source, cells = distinct_columns(points), np.asarray(book.coarse)
    coarse = np.zeros((archetypes, rows), np.int32)
    fine = np.zeros((archetypes, rows, book.digits), np.uint8)
    capacity = balanced.capacity_of(rows - 1, len(cells), balance)
    for column in np.unique(source):
        z = points[column, 1:]
        coarse[column, 1:] = balanced.assign_balanced(z, cells, capacity)
        for at in range(1, rows, ROWS):
            part = column, slice(at, at + ROWS)
            fine[part] = codebook.encode_fine(book, points[part], coarse[part])
    return coarse[source], fine[source]


def fit_shared(
    points: np.ndarray, train_items: np.ndarray, config: QuantizeConfig
) -> tuple[Codebook, np.ndarray]:
    """Fits the digits that all archetypes share, and encodes all items by them.

    Args:
      points: f32[N + 1, D], z of each item as the crowd sees it.
      train_items: bool[N + 1].
      config: settings; `shared` digits are made.

    Returns:
      (codebook of one cell, uint8[N + 1, shared]).
    """
    flat = dataclasses.replace(config, digits=config.shared, shared=0, cells=1, fine="absolute")
    book, _, fine = fit(points[None], train_items, flat)
    return book, fine[0]


def distinct_columns(points: np.ndarray) -> np.ndarray:
    """Which archetypes see the same vectors as an earlier one.

    Args:
      points: f32[A, N + 1, D].

    Returns:
      int[A], the first column equal to each.
    """
    source = np.arange(len(points))
    for column in range(1, len(points)):
        for earlier in np.unique(source[:column]):
            if np.array_equal(points[earlier, 1:], points[column, 1:]):
                source[column] = earlier
                break
    return source


def sample_points(
    points: np.ndarray, columns: np.ndarray, train: np.ndarray, config: QuantizeConfig
) -> np.ndarray:
    """The vectors to fit on: all of (distinct column, training item), or a seeded sample.

    Args:
      points: f32[A, N + 1, D].
      columns: int[A'], distinct columns.
      train: int[n], training items.
      config: settings.

    Returns:
      f32[min(A' n, max_points), D].
    """
    total = len(columns) * len(train)
    chosen = np.arange(total)
    if total > config.max_points:
        generator = np.random.default_rng(config.seed)
        chosen = np.sort(generator.choice(total, config.max_points, replace=False))
    return points[columns[chosen // len(train)], train[chosen % len(train)]]


def count_cells(items: int, train_items: int, config: QuantizeConfig) -> int:
    """C: as set, or round(sqrt(N)); never more than the training items.

    Args:
      items: N.
      train_items: how many of them are training items.
      config: settings.

    Returns:
      C.
    """
    wanted = config.cells or max(1, round(items**0.5))
    return min(wanted, train_items, config.max_points)


def fit_cells(
    sample: np.ndarray, cells: int, config: QuantizeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The coarse cells: k-means, then k-means under the limit on sizes.

    Args:
      sample: f32[n, D].
      cells: C.
      config: settings.

    Returns:
      (f32[C, D] centroids, int32[n] cell of each vector of the sample).
    """
    fit_start = kmeans.fit_progressive if config.kind == "residual" else kmeans.fit_plain
    start = fit_start(sample, cells, config.iterations, config.seed)
    capacity = balanced.capacity_of(len(sample), cells, config.balance)
    return balanced.fit_balanced(sample, start, capacity, BALANCED_ITERATIONS)


def fit_fine(
    sample: np.ndarray,
    coarse: np.ndarray,
    cell: np.ndarray,
    codewords: int,
    config: QuantizeConfig,
) -> Codebook:
    """The fine digits, given the cells.

    Args:
      sample: f32[n, D].
      coarse: f32[C, D].
      cell: int32[n].
      codewords: K.
      config: settings.

    Returns:
      The whole codebook.
    """
    width = sample.shape[1]
    book = functools.partial(Codebook, coarse=jax.numpy.asarray(coarse), kind=config.kind)
    if config.kind == "residual":
        left = sample - coarse[cell]
        levels = opq.fit_levels(left, config.own, codewords, config.iterations, config.seed)
        return book(rotation=jax.numpy.eye(width), fine=jax.numpy.asarray(levels), absolute=False)
    absolute = config.fine == "absolute"
    rotation, fine = opq.fit_opq(
        sample if absolute else sample - coarse[cell],
        config.own,
        codewords,
        config.iterations,
        config.rotation_iterations,
        config.seed,
    )
    if config.own == 1:  # nothing is cut: words of the items' own coordinates, as a level has
        rotation, fine = np.eye(width, dtype=np.float32), fine @ rotation.T
    return book(
        rotation=jax.numpy.asarray(rotation), fine=jax.numpy.asarray(fine), absolute=absolute
    )
