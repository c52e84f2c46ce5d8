"""A readable name for each coarse cell, from the words of its items."""

from __future__ import annotations

import re

import chex
import numpy as np
import scipy.sparse

# Letters of any script; numbers and single letters name nothing.
WORD = re.compile(r"[^\W\d_]{3,}")
STOP_WORDS = frozenset(
    WORD.findall(
        "the and for with from that this are was his her not you your all its who has have had but "
        "into one two out can will she him they them their when what than then over after per via "
        "des les der die das und los las del"
    )
)
# Strength of the prior, in words: a word seen once in a small cell is no name yet.
PRIOR_WORDS = 500.0


def cell_names(coarse: np.ndarray, titles: np.ndarray, cells: int, top: int = 3) -> list[str]:
    """Names each cell by the words that set its items apart from all others.

    Words are ranked by the log-odds of being in a title of the cell, with an informative Dirichlet
    prior, over its standard deviation (Monroe, Colaresi & Quinn 2008, "Fightin' words", eq. 22).

    Args:
      coarse: int32[N + 1], cells of one archetype's column; row 0 is padding.
      titles: str[N + 1], what is known of an item in words.
      cells: C.
      top: words per name.

    Returns:
      C names such as "shampoo, hair, conditioner"; "(empty)" for a cell without items and
      "cell 7" for one without words.
    """
    chex.assert_equal_shape([coarse, titles])
    sizes = np.bincount(coarse[1:], minlength=cells)
    counts, words = count_words(coarse[1:], titles[1:], cells)
    names = ["(empty)" if size == 0 else f"cell {cell}" for cell, size in enumerate(sizes)]
    if counts.nnz == 0:
        return names
    entries = counts.tocoo()
    score = log_odds(entries, counts.sum(axis=1), counts.sum(axis=0))
    # By cell, best first, ties by the alphabet.
    order = np.lexsort((words[entries.col], -score, entries.row))
    row = entries.row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    best = order[(rank < top) & (score[order] > 0)]
    for cell in np.unique(entries.row[best]):
        names[cell] = ", ".join(words[entries.col[best[entries.row[best] == cell]]])
    return names


def count_words(
    cell: np.ndarray, titles: np.ndarray, cells: int
) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """In how many titles of each cell each word occurs.

    Args:
      cell: int32[N].
      titles: str[N].
      cells: C.

    Returns:
      (sparse f64[C, V], str[V] the words).
    """
    bags = [sorted(set(WORD.findall(str(title).lower())) - STOP_WORDS) for title in titles]
    flat = [word for bag in bags for word in bag]
    if not flat:
        return scipy.sparse.csr_array((cells, 0)), np.array([], dtype=str)
    words, number = np.unique(np.array(flat), return_inverse=True)
    row = np.repeat(cell, [len(bag) for bag in bags])
    table = scipy.sparse.coo_array((np.ones(len(row)), (row, number)), shape=(cells, len(words)))
    return table.tocsr(), words


def log_odds(
    entries: scipy.sparse.coo_array, cell_totals: np.ndarray, word_totals: np.ndarray
) -> np.ndarray:
    """Standardised log-odds of each (cell, word) that occurs.

    Args:
      entries: sparse f64[C, V] counts.
      cell_totals: f64[C].
      word_totals: f64[V].

    Returns:
      f64[nnz], in the order of the entries.
    """
    total = cell_totals.sum()
    prior = PRIOR_WORDS * word_totals[entries.col] / total
    inside = entries.data + prior
    outside = word_totals[entries.col] - entries.data + prior
    rest_inside = cell_totals[entries.row] + PRIOR_WORDS - inside
    rest_outside = total - cell_totals[entries.row] + PRIOR_WORDS - outside
    ratio = np.log(inside / rest_inside) - np.log(outside / rest_outside)
    return ratio / np.sqrt(1.0 / inside + 1.0 / outside)
