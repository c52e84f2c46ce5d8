"""Token bags (categories, brands) as weighted sparse rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

LARGEST_VOCABULARY = 4096  # rarer tokens say little about others and would make the PCA large


def fit_idf(bags: Sequence[np.ndarray], training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse document frequencies over the training items.

    Args:
      bags: N + 1 int arrays of token ids.
      training: bool[N + 1].

    Returns:
      vocabulary int64[V], sorted, the most frequent tokens of training items; weights float64[V],
      log((1 + n) / df).
    """
    seen = [np.unique(bag) for bag, fits in zip(bags, training, strict=True) if fits and len(bag)]
    if not seen:
        return np.zeros(0, np.int64), np.zeros(0)
    vocabulary, frequency = np.unique(np.concatenate(seen), return_counts=True)
    frequent = np.sort(np.argsort(-frequency, kind="stable")[:LARGEST_VOCABULARY])
    vocabulary, frequency = vocabulary[frequent], frequency[frequent]
    return vocabulary.astype(np.int64), np.log((1 + len(seen)) / frequency)


def weigh_bags(
    bags: Sequence[np.ndarray], vocabulary: np.ndarray, weights: np.ndarray
) -> scipy.sparse.csr_matrix:
    """Unit-norm tf-idf rows; tokens outside the vocabulary are left out.

    Args:
      bags: N + 1 int arrays of token ids.
      vocabulary: int64[V], sorted.
      weights: float64[V].

    Returns:
      sparse float64[N + 1, V]; rows without known tokens are zero.
    """
    sizes = np.array([len(bag) for bag in bags], np.int64)
    tokens = np.concatenate([np.zeros(0, np.int64), *bags])
    rows = np.repeat(np.arange(len(bags)), sizes)
    columns = np.minimum(np.searchsorted(vocabulary, tokens), max(len(vocabulary) - 1, 0))
    known = vocabulary[columns] == tokens if len(vocabulary) else np.zeros(len(tokens), bool)
    rows, columns = rows[known], columns[known]
    table = scipy.sparse.csr_matrix(
        (weights[columns], (rows, columns)), shape=(len(bags), len(vocabulary))
    )
    norms = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return scipy.sparse.diags_array(1.0 / np.where(norms > 0, norms, 1.0)) @ table
