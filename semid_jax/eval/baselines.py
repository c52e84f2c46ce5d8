"""The baselines that need no training, tuned on validation and ranked like the model."""

from __future__ import annotations

import dataclasses

import numpy as np

from semid_jax.eval.ranking import ranking_metrics
from semid_jax.models.neighbours import Histories, NeighbourTable, rank_targets

NEIGHBOURS = (50, 200, 1000)
LAST = (1, 2, 5, 10, 50, 0)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What validation chose.

    Attributes:
      table: the neighbour table, cut to the chosen number.
      last: history items that count, 0 = all.
      ndcg: validation NDCG@10 of the choice.
      trials: every setting tried: {"neighbours", "last", "ndcg@10"}.
    """

    table: NeighbourTable
    last: int
    ndcg: float
    trials: list[dict[str, float]]


def tune(
    table: NeighbourTable,
    histories: Histories,
    targets: np.ndarray,
    popularity: np.ndarray,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    last: tuple[int, ...] = LAST,
    exclude_history: bool = False,
) -> Tuned:
    """Chooses the number of neighbours and of history items by validation NDCG@10.

    Args:
      table: fitted with the largest number of neighbours wanted.
      histories: of the users, up to the validation item.
      targets: int32[U], the validation items.
      popularity: int64[N + 1], training part.
      neighbours: numbers to try; those above the table's own are tried once, as the table's.
      last: numbers of last history items to try, 0 = all.
      exclude_history: rank without the history.

    Returns:
      The best setting; ties go to the earlier one.
    """
    trials = []
    for count in sorted({min(count, table.neighbours) for count in neighbours}):
        for recent in last:
            ranks = rank_targets(
                table.nearest(count), histories, popularity, targets, recent, exclude_history
            )
            ndcg = float(ranking_metrics(ranks, (10,))["ndcg@10"].mean())
            trials.append({"neighbours": count, "last": recent, "ndcg@10": ndcg})
    best = max(trials, key=lambda trial: trial["ndcg@10"])
    return Tuned(table.nearest(int(best["neighbours"])), int(best["last"]), best["ndcg@10"], trials)
