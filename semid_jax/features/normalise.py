"""Centres, rotates and scales every modality by its training items, so raw scale never matters."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse

from semid_jax import artifacts
from semid_jax.features.attributes import fit_idf, weigh_bags
from semid_jax.features.config import FeaturesConfig
from semid_jax.types import Catalogue, InputError, ItemFeatures

ROWS = 65536  # of items at once
SMALLEST_SHARE = 1e-6  # components with less than this share of the largest deviation are noise


def fit_transform(
    catalogue: Catalogue, train_items: np.ndarray, config: FeaturesConfig
) -> tuple[ItemFeatures, dict[str, np.ndarray]]:
    """Normalises the features of every item by what the training items show.

    Args:
      catalogue: raw features.
      train_items: bool[N + 1], items to fit on.
      config: which modalities, how many components.

    Returns:
      Features of all items, zero where absent, mean squared norm 1 over the training items; and
      the fitted arrays: <modality>/mean [d], <modality>/components [k, d], <modality>/scale [k]
      (x = (raw - mean) @ components.T * scale), for token bags also <modality>/vocabulary and
      <modality>/weights.

    Raises:
      InputError: unknown modality, or one that no training item has.
    """
    features: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    fitted: dict[str, np.ndarray] = {}
    for name in select_modalities(catalogue, config.modalities):
        raw: np.ndarray | scipy.sparse.csr_matrix
        if name in catalogue.vectors:
            raw, has = catalogue.vectors[name], _present(catalogue.vectors[name], name)
        else:
            bags = catalogue.tokens[name]
            vocabulary, weights = fit_idf(bags, train_items)
            raw = weigh_bags(bags, vocabulary, weights)
            has = np.asarray(abs(raw).sum(axis=1)).ravel() > 0
            fitted |= {f"{name}/vocabulary": vocabulary, f"{name}/weights": weights}
        training = has & train_items
        if not training.any():
            raise InputError(
                f"features.modalities: no training item has {name!r}; leave it out of the list"
            )
        mean, components, scale = fit_components(
            raw[np.flatnonzero(training)].astype(np.float64), config.dimensions, config.whitening
        )
        features[name] = _transform(raw, has, mean, components, scale)
        present[name] = has
        fitted |= {
            f"{name}/mean": mean.astype(np.float32),
            f"{name}/components": components.astype(np.float32),
            f"{name}/scale": scale.astype(np.float32),
        }
    return ItemFeatures(features, present), fitted


def read_features(directory: Path) -> ItemFeatures:
    """The features of an artefact "features".

    Args:
      directory: of the artefact.

    Raises:
      InputError: it is missing or torn.
    """
    arrays, _ = artifacts.read(directory, "features", mmap=True)
    x = {k.removeprefix("x/"): v for k, v in arrays.items() if k.startswith("x/")}
    return ItemFeatures(x, {name: arrays[f"present/{name}"] for name in x})


def select_modalities(catalogue: Catalogue, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted modalities, sorted; all of the catalogue's if none is named.

    Raises:
      InputError: one is unknown; names near misses.
    """
    for name in wanted:
        if name not in catalogue.modalities:
            near = difflib.get_close_matches(name, catalogue.modalities, n=1, cutoff=0.4)
            raise InputError(
                f"features.modalities: {name!r} is unknown"
                + (f", did you mean {near[0]!r}?" if near else ";")
                + f" this data set has {', '.join(catalogue.modalities)}"
            )
    return tuple(sorted(set(wanted or catalogue.modalities)))


def _transform(
    raw: np.ndarray | scipy.sparse.csr_matrix,
    has: np.ndarray,
    mean: np.ndarray,
    components: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """float32[N + 1, k], zero where absent; in double precision, some rows at a time."""
    x = np.zeros((len(has), len(components)), np.float32)
    for at in range(0, len(has), ROWS):
        part = slice(at, at + ROWS)
        rows = raw[part]
        if not scipy.sparse.issparse(rows):
            rows = np.where(has[part, None], rows, 0).astype(np.float64)
        made = np.asarray(rows @ components.T - mean @ components.T) * scale
        x[part] = np.where(has[part, None], made, 0)
    return x


def _present(table: np.ndarray, name: str) -> np.ndarray:
    """bool[N + 1], which items have a modality: rows of all nan have none.

    Raises:
      InputError: a row that is neither finite nor all nan.
    """
    has = ~np.isnan(table).all(axis=1)
    has[0] = False
    wrong = np.flatnonzero(has & ~np.isfinite(table).all(axis=1))
    if len(wrong):
        raise InputError(
            f"modality {name!r}: non-finite value in item row {wrong[0]}; make the row finite, or "
            "all NaN if the item lacks this modality"
        )
    return has


def fit_components(
    rows: np.ndarray | scipy.sparse.csr_matrix, dimensions: int, whitening: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of the training rows, largest first, signs fixed.

    Args:
      rows: float64[n, d], dense or sparse.
      dimensions: the most to keep.
      whitening: component k is divided by deviation_k ** whitening.

    Returns:
      mean float64[d]; components float64[k, d], orthonormal; scale float64[k], chosen such that
      the rows have mean squared norm 1 after it.
    """
    count, width = rows.shape
    mean = np.asarray(rows.mean(axis=0)).ravel()
    if scipy.sparse.issparse(rows):
        second = np.asarray((rows.T @ rows).todense(), np.float64) / count
        covariance = second - np.outer(mean, mean)
    else:
        centred = rows - mean
        covariance = centred.T @ centred / count
    kept = min(dimensions, width)
    variances, vectors = scipy.linalg.eigh(covariance, subset_by_index=[width - kept, width - 1])
    variances, components = np.maximum(variances[::-1], 0), vectors[:, ::-1].T
    deviations = np.sqrt(variances)
    # A constant modality keeps one component of zeros rather than none at all.
    real = np.maximum(np.sum(deviations > SMALLEST_SHARE * max(deviations[0], 1e-30)), 1)
    deviations, components = deviations[:real], components[:real]
    largest = np.argmax(np.abs(components), axis=1)
    components = components * np.sign(components[np.arange(real), largest])[:, None]
    safe = np.where(deviations > 0, deviations, 1.0)
    scale = safe**-whitening
    total = np.sqrt(np.sum((deviations * scale) ** 2))
    return mean, components, scale / (total if total > 0 else 1.0)
