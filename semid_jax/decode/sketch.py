"""A short vector of every entry and how far it is from the whole: an upper bound of S1.

S1 is <q, v_i>, and v_i, made of few codes, lies near a space of few dimensions; so do queries. In
coordinates T^-T q and T v, split behind the first r,

    <q, v_i> = <q, mean> + <q_r, v_r> + <q_rest, v_rest>
            <= <q, mean> + <q_r, v_r> + |q_rest| |v_rest| ,

and T is chosen from the second moments of queries and entries so that the last product is small.
With E[q q^T] = G and Cov(v) = S, the directions are the eigenvectors of G^1/2 S G^1/2 and each is
scaled so that queries and entries have the same size in it. The bound holds for any query; a query
unlike those it was fitted on only makes it loose.

Entries are put in blocks of alike ones, the leaves of each cell (see `leaf_order`): a block's
largest bound says whether any of its entries must be looked at, and its mean in the same
coordinates, with how far its scores lie apart, how good its best entry may well be (see `leaves`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.decode.index import Index
from semid_jax.decode.leaf_order import leaf_order
from semid_jax.decode.score import PRECISION, item_vectors
from semid_jax.types import InputError

ROWS = 16384  # entries whose whole vectors are made at once
CUTS = 32  # directions that leaves are cut in, at most
RIDGE = 1e-4  # of the queries' mean square, so that every direction has some
ABOVE = 2.0  # standard deviations above a block's mean: where its best entry is expected
ROUNDING = 2e-6  # of a score's terms: float32 sums of less than a thousand of them, doubled
NEVER = -1e30


class Shape(NamedTuple):
    """r, coordinates kept, at most F, and S, entries of a block."""

    rank: int
    block: int


@struct.dataclass
class Blocks:
    """The entries in b blocks of S slots; a cell's last block may not be full.

    Attributes:
      item: int32[b, S], the entries' items; 0 in slots without one.
      coarse: int32[b], the cell of a block.
      fine: uint8[b, L, S], their Fine-IDs, digit by digit as in `score_slots`.
      bias: float32[b, S]; -inf in slots without an entry.
      mask: uint32[b S], bit a is set where archetype a has the entry; 0 in slots without one.
      any_mask: uint32[b], of a block: what any of its slots has.
    """

    item: jax.Array
    coarse: jax.Array
    fine: jax.Array
    bias: jax.Array
    mask: jax.Array
    any_mask: jax.Array

    @property
    def size(self) -> int:
        """S."""
        return self.item.shape[1]


@struct.dataclass
class Leaves:
    """What `leaves` reads: how good the best entry of a block may well be.

    Attributes:
      blocks: of the index.
      basis: float32[F, r], T^-1's first columns: the coordinates of a query.
      leaf: float32[r + 1, b], mean v_r of a block, and below it how far above that its best entry
        may well be: ABOVE deviations of its entries' scores, for users like those given.
    """

    blocks: Blocks
    basis: jax.Array
    leaf: jax.Array


@struct.dataclass
class Bounds:
    """What `pruned` reads: a short vector of every entry, and what is left of it.

    Attributes:
      blocks: of the index.
      vector: float32[r + 1, b S], v_r and below it |v_rest|, entries on the last axis; slots
        without an entry repeat one of their block.
      mean: float32[F].
      transform: float32[F, F], T^-1, of which the first r columns are those of `vector`.
      longest: float32[], the largest |T (v - mean)|.
    """

    blocks: Blocks
    vector: jax.Array
    mean: jax.Array
    transform: jax.Array
    longest: jax.Array


Sketch = Leaves | Bounds
KINDS: dict[str, type[Leaves | Bounds]] = {"pruned": Bounds, "leaves": Leaves}  # by the search


class _Short(NamedTuple):
    """All entries in few coordinates: float64[F], float64[F, F], float32[n, r + 1], float32[]."""

    mean: np.ndarray
    transform: np.ndarray
    vector: np.ndarray
    longest: np.ndarray


def build_leaves(index: Index, queries: np.ndarray, shape: Shape) -> Leaves:
    """Fits the coordinates, puts the entries in blocks and describes each.

    Args:
      index: the catalogue.
      queries: float32[S, F], vectors of some users, as those to be searched for.
      shape: coordinates and entries of a block.
    """
    short = _shorten(index, queries, shape.rank)
    order, real = _leaf_order(index, short, shape.block)
    rank = short.vector.shape[1] - 1
    basis = short.transform[:, :rank]
    power = np.mean((queries @ basis) ** 2, axis=0)
    leaf = _describe(short.vector[order, :rank], real, power)
    return Leaves(_blocks(index, order, real), jnp.asarray(basis, jnp.float32), jnp.asarray(leaf))


def build_bounds(index: Index, queries: np.ndarray, shape: Shape) -> Bounds:
    """Fits the coordinates and puts the entries, with theirs, in blocks; see `build_leaves`."""
    short = _shorten(index, queries, shape.rank)
    order, real = _leaf_order(index, short, shape.block)
    return Bounds(
        blocks=_blocks(index, order, real),
        vector=jnp.asarray(np.ascontiguousarray(short.vector[order.reshape(-1)].T)),
        mean=jnp.asarray(short.mean, jnp.float32),
        transform=jnp.asarray(short.transform, jnp.float32),
        longest=jnp.asarray(short.longest, jnp.float32),
    )


def shape_of(method: str, leaf_items: int) -> Shape:
    """What a search reads its entries in; for `leaves` `DecodeConfig.leaf_items` at once."""
    return Shape(32, leaf_items) if method == "leaves" else Shape(64, 32)


def build_sketch(method: str, index: Index, queries: np.ndarray, shape: Shape) -> Sketch:
    """What `leaves` or `pruned` reads, by its name; see `build_leaves`."""
    build = build_leaves if method == "leaves" else build_bounds
    return build(index, queries, shape)


def sketch_arrays(sketch: Sketch) -> dict[str, np.ndarray]:
    """The sketch as named arrays, for an artefact; `sketch_from_arrays` is its inverse."""
    fields = {**vars(sketch.blocks), **vars(sketch)}
    return {name: np.asarray(value) for name, value in fields.items() if name != "blocks"}


def sketch_from_arrays(method: str, arrays: Mapping[str, np.ndarray]) -> Sketch:
    """What a search reads, from the arrays of `sketch_arrays`.

    Raises:
      InputError: they are of another search, or of another version of it.
    """
    kind, of_blocks = KINDS[method], Blocks.__dataclass_fields__.keys()
    if arrays.keys() != (of_blocks | kind.__dataclass_fields__.keys()) - {"blocks"}:
        raise InputError(f"index/{method}: made by another version; run the command again")
    made = {name: jnp.asarray(value) for name, value in arrays.items()}
    blocks = Blocks(**{name: made.pop(name) for name in of_blocks})
    return kind(blocks=blocks, **made)


def _shorten(index: Index, queries: np.ndarray, rank: int) -> _Short:
    """The coordinates, and all entries in the first of them."""
    n, rank = index.n_entries, min(rank, queries.shape[1])
    mean, covariance = _moments(index)
    to_query, to_entry = _coordinates(np.asarray(queries, np.float64), covariance)
    short, whole = np.empty((n, rank + 1), np.float32), np.empty(n, np.float32)
    project = jax.jit(
        lambda v, mean, basis: jnp.dot(v - mean, basis, precision=PRECISION), donate_argnums=0
    )
    basis = jnp.asarray(to_entry, jnp.float32)
    for at in range(0, n, ROWS):
        rows = slice(at, at + ROWS)
        made = np.asarray(project(_vectors(index, rows), jnp.asarray(mean, jnp.float32), basis))
        short[rows, :rank] = made[:, :rank]
        short[rows, rank] = np.linalg.norm(made[:, rank:].astype(np.float64), axis=1)
        whole[rows] = np.linalg.norm(made.astype(np.float64), axis=1)
    return _Short(mean, to_query, short, whole.max())


def _leaf_order(index: Index, short: _Short, block: int) -> tuple[np.ndarray, np.ndarray]:
    """int[b, S], which entry lies in a slot, and bool[b, S], whether one does."""
    cuts = min(short.vector.shape[1] - 1, CUTS)
    return leaf_order(short.vector[:, :cuts], np.asarray(index.entry_coarse), block)


def _blocks(index: Index, order: np.ndarray, real: np.ndarray) -> Blocks:
    """The entries of the index in this order."""

    def in_order(a: jax.Array, blank: float = 0) -> np.ndarray:
        made = np.asarray(a)[order]
        return np.where(real, made, made.dtype.type(blank))

    fine = np.asarray(index.entry_fine)[order].transpose(0, 2, 1)
    mask = in_order(index.entry_mask)
    return Blocks(
        item=jnp.asarray(in_order(index.entry_item)),
        coarse=jnp.asarray(np.asarray(index.entry_coarse)[order[:, 0]]),
        fine=jnp.asarray(np.ascontiguousarray(fine)),
        bias=jnp.asarray(in_order(index.entry_bias, -np.inf)),
        mask=jnp.asarray(mask.reshape(-1)),
        any_mask=jnp.asarray(np.bitwise_or.reduce(mask, axis=1)),
    )


def _describe(vector: np.ndarray, real: np.ndarray, power: np.ndarray) -> np.ndarray:
    """What `Leaves.leaf` says of the real slots of blocks.

    Args:
      vector: float32[b, S, r].
      real: bool[b, S].
      power: float[r], mean squares of what users ask of each coordinate.

    Returns:
      float32[r + 1, b].
    """
    share = real / real.sum(axis=1, keepdims=True)
    mean = np.einsum("bs,bsr->br", share, vector)
    square = np.einsum("bs,bsr->br", share, vector**2)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0) @ power)
    return np.concatenate([mean.T, ABOVE * deviation[None]]).astype(np.float32)


def _vectors(index: Index, rows: slice) -> jax.Array:
    """float32[n, F], whole vectors of some entries."""
    codes = index.entry_coarse[rows], index.entry_fine[rows], index.entry_bias[rows]
    return item_vectors(index.tables, *codes)


def _moments(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all entries' vectors, float64."""
    F = _vectors(index, slice(0, 1)).shape[1]
    total, square = np.zeros(F), np.zeros((F, F))
    for at in range(0, index.n_entries, ROWS):
        v = _vectors(index, slice(at, at + ROWS))
        total += np.asarray(jnp.sum(v, axis=0), np.float64)
        square += np.asarray(jnp.dot(v.T, v, precision=PRECISION), np.float64)
    mean = total / index.n_entries
    return mean, square / index.n_entries - np.outer(mean, mean)


def _coordinates(queries: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T^-1 for queries and T^T for entries, both [F, F]: <q, v> = <q T^-1, v T^T>."""
    second = queries.T @ queries / len(queries)
    second += RIDGE * np.trace(second) / len(second) * np.eye(len(second))
    values, axes = np.linalg.eigh(second)
    root = axes * np.sqrt(values)
    inverse = axes / np.sqrt(values)
    spread, turn = np.linalg.eigh(root.T @ covariance @ root)
    spread, turn = spread[::-1], turn[:, ::-1]
    scale = np.maximum(spread, 1e-12 * spread[0]) ** 0.25
    return inverse @ turn * scale, root @ turn / scale
