"""How many coarse cells a search probes: the fewest that lose no more than is allowed.

What is lost is seen on validation, under the score that ranks. The test split has no say in it.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.rescoring import DenseItems
from semid_jax.eval.ranking import ranking_metrics, target_ranks
from semid_jax.eval.searching import Queries, Search, rescoring, run_search
from semid_jax.eval.users import Users

SHARES = tuple(2.0 ** (-step / 2) for step in range(12, -1, -1))  # of the cells, 1/64 to all


def choose_probes(
    cells: int, most: float, ndcg: Callable[[int | None], float]
) -> tuple[int, dict[int, float]]:
    """The fewest probes of a geometric row that lose at most so much, by bisection.

    Args:
      cells: C; as many probes lose nothing and need not be tried.
      most: share of NDCG@10 that may be lost.
      ndcg: probes, or None for the exact search, to NDCG@10, rising but for noise.

    Returns:
      P, and the loss under every P that was tried. Where the exact search finds nothing, nothing
      can be told: all cells.
    """
    exact = ndcg(None)
    row = sorted({math.ceil(share * cells) for share in SHARES})
    tried = {cells: 0.0}

    def is_enough(probes: int) -> bool:
        if probes not in tried:
            tried[probes] = 1.0 - ndcg(probes) / exact if exact else 1.0
        return tried[probes] <= most

    chosen = row[bisect.bisect_left(row, True, key=is_enough)]
    return chosen, dict(sorted(tried.items()))


def search_ndcg(
    queries: Queries,
    index: Index,
    side: Users,
    dense: DenseItems | None,
    config: DecodeConfig,
    probes: int | None,
) -> float:
    """NDCG@10 of all users under `inverted`, or `exact`, and S2 where there is one.

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
    return float(ranking_metrics(ranks)["ndcg@10"].mean())
