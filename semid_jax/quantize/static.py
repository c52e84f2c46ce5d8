"""Semantic IDs that do not depend on the user: what the baselines on IDs are trained on.

One per item; a tokenizer may give an item several, and say which of them an interaction means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from semid_jax.quantize import codebook, fit
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.health import health
from semid_jax.types import InputError, Interactions, ItemFeatures

_PLAIN = ("points", "coarse", "fine", "owner", "uses")
MAX_ALIKE = 256  # items of one code that a last digit of one byte can tell apart


@dataclasses.dataclass(frozen=True)
class StaticIds:
    """A catalogue's IDs.

    Attributes:
      book: the codebook.
      points: float32[V + 1, D], what was quantised.
      coarse: int32[V + 1], codes of V IDs; V = N unless items have several.
      fine: uint8[V + 1, L].
      owner: int32[V + 1], the item of each ID.
      uses: int32[nnz], the ID of every interaction; empty where it is the item's only one.
    """

    book: Codebook
    points: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    owner: np.ndarray
    uses: np.ndarray

    def read(self, interactions: Interactions) -> Interactions:
        """The same histories with IDs in the place of items."""
        if not len(self.uses):
            return interactions
        return dataclasses.replace(interactions, items=self.uses, n_items=len(self.owner) - 1)


def make_static_ids(
    features: ItemFeatures, train_items: np.ndarray, config: QuantizeConfig
) -> StaticIds:
    """Quantises the concatenated features of all modalities; a missing one is zero, its mean.

    Args:
      features: normalised.
      train_items: bool[N + 1], items that the codebook may see.
      config: settings.

    Raises:
      InputError: a setting that no codebook can have.
    """
    points = np.concatenate([features.x[name] for name in features.modalities], axis=1)
    if config.kind == "hierarchical":  # sub-spaces of equal width: fill up with zeros
        points = np.pad(points, ((0, 0), (0, -points.shape[1] % max(config.digits, 1))))
    book, coarse, fine = fit.fit(points[None], train_items, config)
    return StaticIds(book, points, coarse[0], fine[0], *one_each(len(points)))


def one_each(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """`owner` and `uses` where every item has one ID: rows is N + 1."""
    return np.arange(rows, dtype=np.int32), np.zeros(0, np.int32)


def native_ids(points: np.ndarray, book: Codebook) -> StaticIds:
    """IDs by a codebook that is given: the nearest codes of every item's vector.

    Args:
      points: float32[N + 1, D].
      book: any codebook.
    """
    coarse, fine = (np.array(codes) for codes in codebook.encode(book, points))
    coarse[0], fine[0] = 0, 0
    return StaticIds(book, points, coarse, fine, *one_each(len(points)))


def residual_codes(ids: StaticIds) -> np.ndarray:
    """uint8[V + 1, 2 + L], the levels of a codebook and a digit that tells items apart.

    A single cell says nothing and is left out, so that there are 1 + L then. Items of equal codes
    are numbered by the last digit in the order of the catalogue (TIGER, Rajput et al., NeurIPS
    2023, section 3.1), so every item has a code of its own. Row 0 is zero.

    Raises:
      InputError: more items share a code than the last digit can number, or there are more than
        256 cells.
    """
    if ids.book.cells > 256:
        raise InputError(f"quantize.cells: {ids.book.cells} do not fit a code of one byte; use 256")
    levels = np.concatenate([ids.coarse[:, None], ids.fine], axis=1).astype(np.uint8)
    levels = levels[:, 1:] if ids.book.cells == 1 else levels
    _, same = np.unique(levels[1:], axis=0, return_inverse=True)
    same = same.ravel()
    order = np.argsort(same, kind="stable")
    size = np.bincount(same)
    place = np.empty(len(same), np.int64)
    place[order] = np.arange(len(same)) - np.repeat(np.cumsum(size) - size, size)
    if place.max() >= MAX_ALIKE:
        raise InputError(
            f"quantize: {place.max() + 1} items share a code, a last digit tells {MAX_ALIKE} "
            "apart; raise quantize.digits"
        )
    last = np.concatenate([[0], place]).astype(np.uint8)
    levels[0] = 0
    return np.concatenate([levels, last[:, None]], axis=1)


def static_health(ids: StaticIds, categories: np.ndarray) -> dict[str, float]:
    """See `health`; categories str[N + 1]. "ids_per_item" says how many an item has."""
    of_ids = categories[ids.owner]
    found = health(ids.book, ids.coarse[None], ids.fine[None], ids.points[None], of_ids)
    return {**found, "ids_per_item": (len(ids.owner) - 1) / (len(categories) - 1)}


def to_arrays(ids: StaticIds) -> dict[str, np.ndarray]:
    """The IDs as plain arrays, for an artefact directory."""
    book = {f"book/{name}": array for name, array in codebook.to_arrays(ids.book).items()}
    return {**book, **{name: getattr(ids, name) for name in _PLAIN}}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> StaticIds:
    """The inverse of `to_arrays`."""
    book = {k.removeprefix("book/"): v for k, v in arrays.items() if k.startswith("book/")}
    return StaticIds(codebook.from_arrays(book), **{name: arrays[name] for name in _PLAIN})
