"""A large catalogue out of a small one: new items around the real ones, and who chooses them.

A smoothed bootstrap inside each cell of k-means: a new item of parent i in cell c is

    z' = mu_c + sqrt(1 - s^2) (z_i - mu_c) + s epsilon,      epsilon ~ N(0, Sigma_c),

so that the cell keeps its mean and its covariance Sigma_c (shrunk towards that of all cells). A
parent and its children are a family. Where a user has chosen the parent, the expanded history has
one of the family, by popularity within it and by a taste t_u that the user keeps:

    p(child) ~ 1 / (rank + 1) * exp(<t_u, o>),               o: epsilon along the widest directions.

So histories stay real between families and mean something inside them; no item is a uniform random
code. Nothing is said about accuracy in the world: the expanded set is for speed and search loss.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semid_jax.data.sequences import train_items
from semid_jax.data.source import RawDataset
from semid_jax.features.behaviour import NAME as BEHAVIOUR
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_components, fit_transform
from semid_jax.quantize.kmeans import fit_kmeans
from semid_jax.quantize.nearest import nearest_chunked
from semid_jax.types import Catalogue, InputError

MODALITY = "fused"
WIDTH = 64  # of z
SMOOTHING = 0.7  # s: half of a cell's variance is new
TASTES = 4  # directions of t_u
SEED = 0
CHOICES = 4096  # interactions at once


@dataclasses.dataclass(frozen=True)
class Expansion:
    """What is drawn around a data set.

    Attributes:
      parent: int64[N' - N], of the children in order, from 0.
      vectors: float32[N' + 1, 64 at most], z' of all items; row 0 is nan.
      chosen: int32[nnz], items of the expanded catalogue in the place of the real ones.
    """

    parent: np.ndarray
    vectors: np.ndarray
    chosen: np.ndarray


def draw(raw: RawDataset, items: int) -> Expansion:
    """Draws new items and who has chosen them.

    Args:
      raw: real data.
      items: N' of the result, the first N being the real ones.

    Raises:
      InputError: fewer items than there are.
    """
    real = raw.catalogue.n_items
    if items < real:
        raise InputError(f"data.expand: {items:,} items, this data set has {real:,}; name more")
    rng = np.random.default_rng(SEED)
    points = item_points(raw)
    children = np.full(real, (items - real) // real)
    children[: (items - real) % real] += 1
    family = Family(np.concatenate([[0], np.cumsum(children)]))
    parent = np.repeat(np.arange(real), children)
    drawn, offsets = draw_children(points[1:], parent, rng)
    vectors = np.concatenate([points, drawn])
    vectors[0] = np.nan
    return Expansion(parent, vectors, choose_members(raw, family, offsets, rng))


def expanded(raw: RawDataset, drawn: Expansion) -> RawDataset:
    """The same users and times, their histories in the expanded catalogue, one modality."""
    catalogue = name_items(raw.catalogue, drawn.parent, drawn.vectors)
    interactions = dataclasses.replace(
        raw.interactions, items=drawn.chosen, n_items=catalogue.n_items
    )
    return RawDataset(interactions, catalogue, {})


def expanded_modalities(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """What is asked of the real catalogue, of the expanded one: its one modality, and behaviour."""
    return (*(name for name in wanted if name == BEHAVIOUR), MODALITY)


@dataclasses.dataclass(frozen=True)
class Family:
    """Which new items belong to which real one.

    Attributes:
      first: int64[N + 1]; of all children, item i's (from 1) are first[i - 1] .. first[i] - 1.
    """

    first: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """int64[N], children of items 1..N."""
        return np.diff(self.first)


def item_points(raw: RawDataset) -> np.ndarray:
    """z, float32[N + 1, 64 at most]: principal components of all normalised modalities."""
    known = train_items(raw.interactions)
    features, _ = fit_transform(raw.catalogue, known, FeaturesConfig(whitening=0.5))
    rows = np.concatenate([features.x[name] for name in features.modalities], axis=1)
    rows = rows.astype(np.float64)
    mean, components, scale = fit_components(rows[known], WIDTH, 0.0)
    return ((rows - mean) @ components.T * scale).astype(np.float32)


def into_cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k-means with sqrt(N) cells: the cell of each point, int[N], and means, float32[C, F]."""
    cells = max(round(len(points) ** 0.5), 1)
    centres = fit_kmeans(points[:, None], cells, 25, SEED)
    number = np.asarray(nearest_chunked(points[:, None], centres)[0])[:, 0]
    used, cell = np.unique(number, return_inverse=True)
    return cell, np.stack([points[cell == c].mean(axis=0) for c in range(len(used))])


def draw_children(
    points: np.ndarray, parent: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """New items around the real ones.

    Args:
      points: float32[N, F], z of the real items.
      parent: int[n], rows of `points`.
      rng: source of chance.

    Returns:
      z' float32[n, F]; o float32[n, q], epsilon in the q widest directions, of unit variance.
    """
    cell, means = into_cells(points)
    rest = points - means[cell]
    pooled = rest.T.astype(np.float64) @ rest / len(rest)
    values, axes = np.linalg.eigh(pooled)
    widest = slice(-TASTES, None)
    directions = axes[:, widest] / np.sqrt(np.maximum(values[widest], 1e-12))
    kept = np.sqrt(1.0 - SMOOTHING**2)
    drawn = np.empty((len(parent), points.shape[1]), np.float32)
    offsets = np.empty((len(parent), directions.shape[1]), np.float32)
    for c in range(len(means)):
        own, rows = rest[cell == c], np.flatnonzero(cell[parent] == c)
        # As if F more items of the cell had the covariance of all cells.
        total = own.T.astype(np.float64) @ own + len(pooled) * pooled
        spread, turn = np.linalg.eigh(total / (len(own) + len(pooled)))
        root = turn * np.sqrt(np.maximum(spread, 0.0))
        noise = rng.standard_normal((len(rows), len(root)), np.float32) @ root.T
        drawn[rows] = means[c] + kept * rest[parent[rows]] + SMOOTHING * noise
        offsets[rows] = noise @ directions
    return drawn, offsets


def choose_members(
    raw: RawDataset, family: Family, offsets: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Which of a family a user has chosen, for every interaction.

    Args:
      raw: real data.
      family: of the items.
      offsets: float32[n, q], o of the children in order.
      rng: source of chance.

    Returns:
      int32[nnz], items of the expanded catalogue.
    """
    interactions = raw.interactions
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)
    taste = rng.standard_normal((interactions.n_users, offsets.shape[1]), np.float32)
    most = int(family.sizes.max())
    # Rank 0 is the real item, the others are in the order of chance in which they were drawn.
    popularity = -np.log(np.arange(most + 1, dtype=np.float32) + 1.0)
    chosen = np.empty(len(user), np.int32)
    for at in range(0, len(user), CHOICES):
        part = slice(at, at + CHOICES)
        item = interactions.items[part].astype(np.int64)
        place = family.first[item - 1][:, None] + np.arange(most)
        there = np.arange(most) < family.sizes[item - 1][:, None]
        around = offsets[np.where(there, place, 0)] if most else np.zeros((len(item), 0, TASTES))
        likes = np.einsum("nq,nmq->nm", taste[user[part]], around)
        score = np.pad(np.where(there, likes, -np.inf), ((0, 0), (1, 0))) + popularity
        member = np.argmax(score + rng.gumbel(size=score.shape), axis=1)
        child = interactions.n_items + 1 + family.first[item - 1] + member - 1
        chosen[part] = np.where(member == 0, item, child)
    return chosen


def name_items(catalogue: Catalogue, parent: np.ndarray, vectors: np.ndarray) -> Catalogue:
    """The expanded catalogue: children are called by their parent's id and a number."""
    number = np.arange(len(parent)) - np.searchsorted(parent, parent) + 1
    name = number.astype(f"U{len(str(number.max(initial=0)))}")  # as wide as it need be
    ids = np.char.add(np.char.add(catalogue.item_ids[1:][parent], "+"), name)
    ids = np.concatenate([catalogue.item_ids, ids])
    blank = np.zeros(len(ids), "U1")
    return Catalogue(ids, ids, blank, {MODALITY: vectors}, {})
