"""What is chosen together, as one more modality: item vectors from the train parts of histories.

Positive pointwise mutual information, factorised: Levy and Goldberg, "Neural Word Embedding
as Implicit Matrix Factorization", NIPS 2014, section 3.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from semid_jax.data.sequences import train_mask
from semid_jax.types import Catalogue, InputError, Interactions

NAME = "behaviour"
WINDOW = 10  # positions that two items of one history lie apart, at most
SMALLEST = 1e-6  # eigenvalues below this share of the largest are noise


def with_behaviour(
    catalogue: Catalogue, interactions: Interactions, modalities: tuple[str, ...], dimensions: int
) -> Catalogue:
    """The catalogue with vectors of behaviour, where they are asked for and it has none.

    Args:
      catalogue: raw features.
      interactions: histories.
      modalities: those that are asked for.
      dimensions: width of the vectors, at most.

    Raises:
      InputError: no two items were chosen together.
    """
    if NAME not in modalities or NAME in catalogue.modalities:
        return catalogue
    vectors = behaviour_vectors(interactions, dimensions)
    return dataclasses.replace(catalogue, vectors={**catalogue.vectors, NAME: vectors})


def behaviour_vectors(
    interactions: Interactions, dimensions: int, window: int = WINDOW
) -> np.ndarray:
    """Vectors whose products are nearly the mutual information of items.

    Args:
      interactions: histories; their train parts are read.
      dimensions: at most so many.
      window: see `co_occurrences`.

    Returns:
      float32[N + 1, d], NaN for items that were never chosen beside another.

    Raises:
      InputError: no two items were chosen together.
    """
    information = mutual_information(co_occurrences(interactions, window))
    if not information.nnz:
        raise InputError(
            f"no two items are chosen together: leave {NAME!r} out of features.modalities, and "
            "tokenizer.own at 0"
        )
    d = min(dimensions, information.shape[0] - 1)
    start = np.random.default_rng(0).normal(size=information.shape[0])
    values, vectors = scipy.sparse.linalg.eigsh(information, k=d, which="LA", v0=start)
    kept = values > SMALLEST * values.max()
    made = (vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1]
    alone = information.sum(axis=1) == 0
    return np.where(alone[:, None], np.nan, made).astype(np.float32)


def co_occurrences(interactions: Interactions, window: int) -> scipy.sparse.csr_array:
    """How often two items lie at most `window` apart in the train part of one history.

    Args:
      interactions: histories.
      window: in positions.

    Returns:
      float64[N + 1, N + 1], symmetric; an item beside itself is not counted.
    """
    shown = train_mask(interactions)
    items = interactions.items[shown]
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)[shown]
    size = interactions.n_items + 1
    counts = scipy.sparse.csr_array((size, size))
    for apart in range(1, window + 1):  # a handful; pairs of all users at once
        left, right = items[:-apart], items[apart:]
        pair = (user[:-apart] == user[apart:]) & (left != right)
        ones = np.ones(int(pair.sum()))
        counts += scipy.sparse.csr_array((ones, (left[pair], right[pair])), (size, size))
    return (counts + counts.T).tocsr()


def mutual_information(counts: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """max(log(c_ij c / (c_i c_j)), 0), c_i and c being sums over one and both axes of `counts`.

    Args:
      counts: float64[n, n], symmetric.

    Returns:
      float64[n, n].
    """
    pairs = counts.tocoo()
    total = counts.sum(axis=1)
    found = np.log(pairs.data * total.sum() / (total[pairs.row] * total[pairs.col]))
    made = scipy.sparse.csr_array((np.maximum(found, 0.0), (pairs.row, pairs.col)), counts.shape)
    made.eliminate_zeros()
    return made
