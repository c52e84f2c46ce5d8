"""How healthy semantic IDs are: collisions, use, balance, loss, and agreement with categories."""

from __future__ import annotations

import chex
import numpy as np
import scipy.sparse

from semid_jax.quantize import codebook as books
from semid_jax.quantize.codebook import Codebook


def health(
    codebook: Codebook,
    coarse: np.ndarray,
    fine: np.ndarray,
    points: np.ndarray,
    categories: np.ndarray,
) -> dict[str, float]:
    """Measures the IDs of a catalogue; where archetypes differ, the mean over them.

    Args:
      codebook: the codebook.
      coarse: int32[A, N + 1].
      fine: uint8[A, N + 1, L].
      points: f32[A, N + 1, D], the vectors that the IDs stand for.
      categories: str[N + 1], joined by "|", "" = unknown; the first one counts.

    Returns:
      Name -> value:
        collision_rate: share of items whose whole ID another item has too;
        entries_per_item: distinct (item, ID) over N, 1 to A;
        usage: share of a digit's K codewords that some item has, mean over digits;
        perplexity: of a digit's codewords, mean over digits (at most K);
        least_perplexity: of the digit that says least;
        coarse_perplexity: of the cells (at most C);
        balance: largest list over the mean list N / C, largest over archetypes;
        reconstruction_error: |z - decoded|^2 over |z - mean z|^2, 0 is lossless;
        nmi: mutual information of cell and category over the mean of their entropies;
        purity: share of items that have the commonest category of their cell.
      The last two are left out where no item has a category.
    """
    chex.assert_rank([coarse, fine, points], [2, 3, 3])
    coarse, fine, points = coarse[:, 1:], fine[:, 1:], points[:, 1:]
    chex.assert_equal_shape_prefix([coarse, fine, points], 2)
    chex.assert_shape(categories, (coarse.shape[1] + 1,))
    archetypes, items = coarse.shape
    rows = id_rows(coarse, fine)
    columns = range(archetypes)
    lists = np.stack([np.bincount(coarse[a], minlength=codebook.cells) for a in columns])
    uses = np.stack([digit_counts(fine[a], codebook.codewords) for a in columns])
    found = {
        "collision_rate": float(np.mean([collision_rate(rows[a]) for a in columns])),
        "entries_per_item": count_entries(rows) / items,
        "usage": float(np.mean(uses > 0)),
        "perplexity": float(np.mean(perplexity(uses))),
        "least_perplexity": float(np.min(perplexity(uses), initial=codebook.codewords)),
        "coarse_perplexity": float(np.mean(perplexity(lists))),
        "balance": float(lists.max() * codebook.cells / items),
        "reconstruction_error": reconstruction_error(codebook, coarse, fine, points),
    }
    label = first_category(categories[1:])
    known = label >= 0
    if known.any():
        agreement = [cell_agreement(coarse[a][known], label[known]) for a in columns]
        nmi, purity = np.mean(agreement, axis=0)
        found |= {"nmi": float(nmi), "purity": float(purity)}
    return found


def id_rows(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Whole IDs as single comparable values.

    Args:
      coarse: int32[A, N].
      fine: uint8[A, N, L].

    Returns:
      void[A, N] of 4 + L bytes.
    """
    cell = np.ascontiguousarray(coarse, "<i4")[..., None].view(np.uint8)
    whole = np.ascontiguousarray(np.concatenate([cell, fine], axis=-1))
    return whole.view(f"V{whole.shape[-1]}")[..., 0]


def collision_rate(rows: np.ndarray) -> float:
    """Share of items whose ID another item has too.

    Args:
      rows: void[N], IDs.

    Returns:
      0 (all distinct) to 1.
    """
    _, counts = np.unique(rows, return_counts=True)
    return float(counts[counts > 1].sum() / len(rows))


def count_entries(rows: np.ndarray) -> int:
    """Distinct (item, ID) over all archetypes: the entries an index needs.

    Args:
      rows: void[A, N], IDs.

    Returns:
      N to A N.
    """
    archetypes, items = rows.shape
    _, number = np.unique(rows, return_inverse=True)
    number = number.reshape(archetypes, items)
    ordered = np.sort(number, axis=0)
    return int(items + (np.diff(ordered, axis=0) != 0).sum())


def digit_counts(fine: np.ndarray, codewords: int) -> np.ndarray:
    """How many items have each codeword.

    Args:
      fine: uint8[N, L].
      codewords: K.

    Returns:
      int64[L, K].
    """
    digits = fine.shape[1]
    flat = fine.astype(np.int64) + np.arange(digits) * codewords
    return np.bincount(flat.ravel(), minlength=digits * codewords).reshape(digits, codewords)


def perplexity(counts: np.ndarray) -> np.ndarray:
    """Exponential of the entropy: how many values are used, counted by how evenly.

    Args:
      counts: int[..., K].

    Returns:
      f64[...], 1 to K.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    return np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1))


def reconstruction_error(
    codebook: Codebook, coarse: np.ndarray, fine: np.ndarray, points: np.ndarray
) -> float:
    """What the IDs lose, relative to the spread of the vectors.

    Args:
      codebook: the codebook.
      coarse: int32[A, N].
      fine: uint8[A, N, L].
      points: f32[A, N, D].

    Returns:
      sum |z - decoded|^2 / sum |z - mean z|^2, the mean taken per archetype.
    """
    lost = spread = 0.0
    for cell, codes, z in zip(coarse, fine, points, strict=True):
        decoded = np.asarray(books.decode(codebook, cell, codes))
        lost += float(np.sum((z - decoded) ** 2, dtype=np.float64))
        spread += float(np.sum((z - z.mean(axis=0)) ** 2, dtype=np.float64))
    return lost / spread if spread > 0 else 0.0


def first_category(categories: np.ndarray) -> np.ndarray:
    """The first of each item's categories as a number.

    Args:
      categories: str[N], joined by "|".

    Returns:
      int[N], -1 = unknown.
    """
    first = np.char.partition(np.asarray(categories).astype(str), "|")[:, 0]
    names, number = np.unique(first, return_inverse=True)
    return np.where(names[number] == "", -1, number)


def cell_agreement(cell: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """How far cells and labels say the same.

    Args:
      cell: int[n].
      label: int[n], 0 or more.

    Returns:
      (normalised mutual information, purity), each 0 to 1.
    """
    ones = np.ones(len(cell))
    table = scipy.sparse.coo_array((ones, (cell, label))).tocsr()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    entries = table.tocoo()
    n = len(cell)
    expected = rows[entries.row] * columns[entries.col] / n
    information = float(np.sum(entries.data / n * np.log(entries.data / expected)))
    entropies = float(np.log(perplexity(rows)) + np.log(perplexity(columns)))
    nmi = 2.0 * information / entropies if entropies > 0 else 1.0
    purity = float(table.max(axis=1).toarray().sum() / n)
    return max(nmi, 0.0), purity
