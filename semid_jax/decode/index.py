"""The catalogue by cell: one entry per distinct (item, ID), lists per archetype."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.decode.blocks import Blocks, build_blocks, with_bias
from semid_jax.decode.score import Tables
from semid_jax.decode.topk import tie_hash
from semid_jax.types import InputError

MAX_ARCHETYPES = 32  # bits of an entry's mask


@struct.dataclass
class Index:
    """What a search reads.

    Entries are in the order of (cell, tie hash), so that of equal IDs the first wins a tie.

    Attributes:
      tables: embeddings of the codes.
      entry_item: int32[n], item numbers 1..N.
      entry_coarse: int32[n], codes c.
      entry_fine: uint8[n, L], codes f.
      entry_bias: float32[n], b_i.
      entry_mask: uint32[n], bit a is set where archetype a gives the item this ID.
      entry_of: int32[A, N + 1], the entry of an item for an archetype; -1 for item 0.
      lists: int32[A, N], entries of an archetype by cell.
      offsets: int32[A, C + 1]; cell c of archetype a is lists[a, offsets[a, c]:offsets[a, c + 1]].
      blocks: the lists again, as `inverted` reads them.
    """

    tables: Tables
    entry_item: jax.Array
    entry_coarse: jax.Array
    entry_fine: jax.Array
    entry_bias: jax.Array
    entry_mask: jax.Array
    entry_of: jax.Array
    lists: jax.Array
    offsets: jax.Array
    blocks: Blocks

    @property
    def n_entries(self) -> int:
        """Distinct (item, ID) pairs."""
        return self.entry_item.shape[0]

    @property
    def n_items(self) -> int:
        """N."""
        return self.lists.shape[1]

    @property
    def n_archetypes(self) -> int:
        """A."""
        return self.lists.shape[0]

    @property
    def n_cells(self) -> int:
        """C."""
        return self.offsets.shape[1] - 1

    @property
    def max_list(self) -> int:
        """The longest list of any archetype."""
        return int(np.diff(np.asarray(self.offsets), axis=1).max())


def build_index(coarse: np.ndarray, fine: np.ndarray, bias: np.ndarray, tables: Tables) -> Index:
    """Builds the index of a catalogue.

    Args:
      coarse: int32[A, N + 1], Coarse-ID of every item for every archetype; row 0 is padding.
      fine: uint8[A, N + 1, L], Fine-IDs.
      bias: float32[A, N + 1], b_i = sum_j r[c, j, f_j], a function of the ID.
      tables: embeddings of the codes.

    Returns:
      The index, its arrays on the default device.

    Raises:
      InputError: codes that the tables do not have, or shapes that do not fit.
    """
    coarse, fine, bias = np.asarray(coarse), np.asarray(fine), np.asarray(bias)
    _check(coarse, fine, bias, tables)
    A, rows = coarse.shape
    first = _first_archetype(coarse, fine)
    mask = np.zeros((A, rows), np.uint32)
    for a in range(A):
        mask[first[a], np.arange(rows)] |= np.uint32(1 << a)
    archetype, item = np.nonzero(mask[:, 1:])
    item = (item + 1).astype(np.int32)
    order = np.lexsort((tie_hash(item), coarse[archetype, item]))
    archetype, item = archetype[order], item[order]

    entry = np.full((A, rows), -1, np.int32)
    entry[archetype, item] = np.arange(len(item), dtype=np.int32)
    entry_of = entry[first, np.arange(rows)]
    entry_coarse = coarse[archetype, item].astype(np.int32)
    lists = np.sort(entry_of[:, 1:], axis=1)
    cells = np.arange(tables.coarse.shape[0] + 1)
    offsets = np.stack([np.searchsorted(entry_coarse[row], cells) for row in lists])
    arrays = {
        "tables/coarse": np.asarray(tables.coarse, np.float32),
        "tables/fine": np.asarray(tables.fine, np.float32),
        "entry_item": item,
        "entry_coarse": entry_coarse,
        "entry_fine": fine[archetype, item],
        "entry_bias": bias[archetype, item].astype(np.float32),
        "entry_mask": mask[archetype, item],
        "entry_of": entry_of,
        "lists": lists,
        "offsets": offsets.astype(np.int32),
    }
    return index_from_arrays(arrays)


def index_arrays(index: Index) -> dict[str, np.ndarray]:
    """The index as named arrays, for an artefact; `index_from_arrays` is its inverse."""
    arrays = {
        name: np.asarray(getattr(index, name))
        for name in index.__dataclass_fields__
        if name not in ("tables", "blocks")
    }
    tables = {"coarse": index.tables.coarse, "fine": index.tables.fine}
    return {**{f"tables/{name}": np.asarray(x) for name, x in tables.items()}, **arrays}


def index_from_arrays(arrays: Mapping[str, np.ndarray]) -> Index:
    """The index from the arrays of `index_arrays`, on the default device."""
    own = {name: jnp.asarray(x) for name, x in arrays.items() if not name.startswith("tables/")}
    tables = Tables(jnp.asarray(arrays["tables/coarse"]), jnp.asarray(arrays["tables/fine"]))
    names = "lists", "offsets", "entry_fine", "entry_bias"
    blocks = build_blocks(*(np.asarray(arrays[name]) for name in names))
    return Index(tables=tables, blocks=blocks, **own)


def with_scores(index: Index, tables: Tables, bias: jax.Array) -> Index:
    """The index of the same IDs under other embeddings and biases float32[n]: its lists stay."""
    blocks = with_bias(index.blocks, bias)
    return dataclasses.replace(index, tables=tables, entry_bias=bias, blocks=blocks)


def index_report(index: Index) -> dict[str, float]:
    """What the index costs and how even its lists are.

    Returns:
      entries_per_item (entries / N), max_list, empty_lists (share), and per archetype a
      balance_<a> (longest list over mean list), with their largest as balance.
    """
    sizes = np.diff(np.asarray(index.offsets), axis=1)
    balance = sizes.max(axis=1) / sizes.mean(axis=1)
    return {
        "entries_per_item": index.n_entries / index.n_items,
        "max_list": float(index.max_list),
        "empty_lists": float((sizes == 0).mean()),
        "balance": float(balance.max()),
        **{f"balance_{a}": float(x) for a, x in enumerate(balance)},
    }


def _first_archetype(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """int[A, N + 1], the first archetype that gives an item the same ID as archetype a does."""
    A, rows = coarse.shape
    first = np.repeat(np.arange(A)[:, None], rows, axis=1)
    for a in range(1, A):
        for b in reversed(range(a)):
            same = (coarse[a] == coarse[b]) & (fine[a] == fine[b]).all(axis=1)
            first[a] = np.where(same, b, first[a])
    return first


def _check(coarse: np.ndarray, fine: np.ndarray, bias: np.ndarray, tables: Tables) -> None:
    C, (L, K, _) = tables.coarse.shape[0], tables.fine.shape
    A, rows = coarse.shape
    if A > MAX_ARCHETYPES:
        raise InputError(
            f"index: {A} archetypes, an entry's mask holds {MAX_ARCHETYPES}; "
            f"set tokenizer.archetypes to {MAX_ARCHETYPES} or fewer"
        )
    if fine.shape != (A, rows, L) or bias.shape != (A, rows):
        raise InputError(
            f"index: coarse {coarse.shape}, fine {fine.shape}, bias {bias.shape} and L = {L} "
            "do not fit; run the tokenize stage again"
        )
    if rows < 2:
        raise InputError("index: coarse has no item; run the data stage again")
    if fine.dtype != np.uint8:
        raise InputError(f"index: fine is {fine.dtype}, not uint8; run the tokenize stage again")
    for name, codes, limit in (("coarse", coarse, C), ("fine", fine, K)):
        if codes[:, 1:].min() < 0 or codes[:, 1:].max() >= limit:
            raise InputError(
                f"index: {name} has a code outside 0..{limit - 1}; run the tokenize stage again"
            )
    if not np.isfinite(bias[:, 1:]).all():
        raise InputError("index: bias is not finite; train the generator again")
