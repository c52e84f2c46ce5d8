"""How many cells, or leaves, a search reads: the fewest that surely lose no more than is allowed.

What is lost is seen on validation, under the score that ranks. The test split has no say in it. A
loss hangs on a few users, whose target leaves the list; so its interval counts, not its mean.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.rescoring import DenseItems
from semid_jax.decode.score import Query
from semid_jax.eval.ranking import ranking_metrics, target_ranks
from semid_jax.eval.searching import Queries, Search, rescoring, run_search
from semid_jax.eval.users import Users, pad_rows

SHARES = tuple(2.0 ** (-step / 2) for step in range(24, -1, -1))  # of all, 1/4096 to 1
ONE_SIDED = 1.645  # standard errors below which 95 % of a normal variable lies


class Loss(NamedTuple):
    """Share of the exact search's NDCG@10, or of another worth, that is lost.

    Attributes:
      mean: over users.
      upper: end of its one-sided interval of 95 %.
    """

    mean: float
    upper: float


def search_loss(exact: np.ndarray, found: np.ndarray) -> Loss:
    """What a search loses, with the normal interval of a ratio of means (delta method).

    Args:
      exact, found: worth per user of the exact search and of the one asked about, float[U].

    Returns:
      The loss. Where the exact search finds nothing, nothing can be told: all is lost.
    """
    if not exact.any():
        return Loss(1.0, 1.0)
    mean = 1.0 - found.mean() / exact.mean()
    residual = (1.0 - mean) * exact - found
    error = residual.std() / exact.mean() / math.sqrt(len(exact))
    return Loss(float(mean), float(mean + ONE_SIDED * error))


def choose_probes(
    cells: int, most: float, worth: Callable[[int | None], np.ndarray]
) -> tuple[int, dict[int, Loss]]:
    """The fewest probes of a geometric row that surely lose at most so much, by bisection.

    Args:
      cells: C; as many probes lose nothing and need not be tried.
      most: share of the worth that may be lost, by the upper end of its interval.
      worth: probes, or None for the exact search, to worth per user, float[U], NDCG@10 or other,
        whose mean rises with the probes but for noise.

    Returns:
      P, and the loss under every P that was tried.
    """
    exact = worth(None)
    row = sorted({math.ceil(share * cells) for share in SHARES})
    tried = {cells: Loss(0.0, 0.0)}

    def is_enough(probes: int) -> bool:
        if probes not in tried:
            tried[probes] = search_loss(exact, worth(probes))
        return tried[probes].upper <= most

    chosen = row[bisect.bisect_left(row, True, key=is_enough)]
    return chosen, dict(sorted(tried.items()))


def search_ndcg(
    queries: Queries,
    index: Index,
    side: Users,
    dense: DenseItems | None,
    config: DecodeConfig,
    probes: int | None,
) -> np.ndarray:
    """NDCG@10 per user, float[U], under `inverted`, or `exact`, and S2 where there is one.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      dense: the catalogue's side of the dense term; None where S1 is all there is.
      config: searches.
      probes: P of `inverted`; None for `exact`.
    """
    k = config.k if dense is None else config.rescored
    search: Search = functools.partial(retrieve_exact, index, k=k, chunk=config.chunk)
    if probes is not None:
        search = functools.partial(retrieve_inverted, index, probes=probes, k=k)
    if dense is not None:
        search = rescoring(search, dense, config.k)
    name = "search exact" if probes is None else f"search {probes} cells"
    ranks = target_ranks(run_search(queries, search, name).items, side.targets)
    return np.asarray(ranking_metrics(ranks)["ndcg@10"])


def item_places(
    queries: Queries, items: np.ndarray, place: Callable[[Query, jax.Array], jax.Array]
) -> np.ndarray:
    """Where a search that reads part by part comes upon items.

    Args:
      queries: of U users.
      items: int32[U, k], 0 = none.
      place: of B users and items int32[B, k], see `cell_places` and `leaf_places`.

    Returns:
      int32[U, k], how many cells, or leaves, must be read; 0 where there is no item.
    """
    placed = [np.zeros((0, items.shape[1]), np.int32)]
    for query, rows, n in queries:
        asked = jnp.asarray(pad_rows(items[rows], len(query.archetype)))
        placed.append(np.asarray(place(query, asked))[:n])
    return np.concatenate(placed)


def probes_for_recall(places: np.ndarray, parts: int, recall: float) -> tuple[int, Loss]:
    """The fewest cells, or leaves, that surely hold so much of the exact lists.

    What lists have in common is seen on few users, whatever the model is worth; and no search need
    be run: of the exact k best items a search finds those that lie in what it reads.

    Args:
      places: int32[U, k], of the exact lists' items, see `item_places`.
      parts: how many cells or leaves there are.
      recall: share of the items, by the lower end of its interval; lists of none are found whole.

    Returns:
      How many, and the share that is missed.
    """
    there = places > 0
    each = np.maximum(there.sum(axis=1), 1)

    def missed(probes: int) -> Loss:
        behind = (there & (places > probes)).sum(axis=1)
        return search_loss(np.ones(len(places)), 1.0 - behind / each)

    def is_enough(probes: int) -> bool:
        return missed(probes).upper <= 1.0 - recall

    chosen = 1 + bisect.bisect_left(range(1, parts), True, key=is_enough)
    return chosen, missed(chosen)
