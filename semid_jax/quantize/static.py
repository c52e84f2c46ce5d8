"""One semantic ID per item, the same for every user: what the baselines on IDs are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from semid_jax.quantize import codebook, fit
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.health import health
from semid_jax.types import InputError, ItemFeatures

MAX_ALIKE = 256  # items of one code that a last digit of one byte can tell apart


@dataclasses.dataclass(frozen=True)
class StaticIds:
    """A catalogue's IDs.

    Attributes:
      book: the codebook.
      points: float32[N + 1, D], what was quantised.
      coarse: int32[N + 1].
      fine: uint8[N + 1, L].
    """

    book: Codebook
    points: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray


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
    return StaticIds(book, points, coarse[0], fine[0])


def native_ids(points: np.ndarray, book: Codebook) -> StaticIds:
    """IDs by a codebook that is given: the nearest codes of every item's vector.

    Args:
      points: float32[N + 1, D].
      book: any codebook.
    """
    coarse, fine = (np.array(codes) for codes in codebook.encode(book, points))
    coarse[0], fine[0] = 0, 0
    return StaticIds(book, points, coarse, fine)


def residual_codes(ids: StaticIds) -> np.ndarray:
    """uint8[N + 1, 2 + L], the levels of a codebook and a digit that tells items apart.

    A single cell says nothing and is left out, so that there are 1 + L then. Items of equal codes
    are numbered by the last digit in the order of the catalogue (TIGER, Rajput et al., NeurIPS
    2023, section 3.1), so every item has a code of its own. Row 0 is zero.

    Raises:
      InputError: more items share a code than the last digit can number, or there are more than
        256 cells.
    """
    if ids.book.cells > 256:
        raise InputError(f"quantize.cells: {ids.book.cells} do not fit a code of one byte; use 256")
    coarse = ids.coarse[:, None] if ids.book.cells > 1 else ids.coarse[:, :0]
    levels = np.concatenate([coarse, ids.fine], axis=1).astype(np.uint8)
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
    """See `health`; categories str[N + 1]."""
    return health(ids.book, ids.coarse[None], ids.fine[None], ids.points[None], categories)


def to_arrays(ids: StaticIds) -> dict[str, np.ndarray]:
    """The IDs as plain arrays, for an artefact directory."""
    book = {f"book/{name}": array for name, array in codebook.to_arrays(ids.book).items()}
    return {**book, "points": ids.points, "coarse": ids.coarse, "fine": ids.fine}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> StaticIds:
    """The inverse of `to_arrays`."""
    book = {k.removeprefix("book/"): v for k, v in arrays.items() if k.startswith("book/")}
    return StaticIds(codebook.from_arrays(book), arrays["points"], arrays["coarse"], arrays["fine"])
