"""Searches run over all users: queries batch by batch, ranks, ranked lists side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from semid_jax.decode.exact import exact_rank
from semid_jax.decode.index import Index
from semid_jax.decode.rescoring import DenseItems, rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query
from semid_jax.eval.ranking import (
    cutoffs_of,
    named,
    ranking_metrics,
    target_ranks,
    without_seen,
)
from semid_jax.eval.users import BATCH, Lists, Users, mean_metrics, pad_rows

Search = Callable[[Query], Retrieved]


class Queries:
    """Queries of all users, batch by batch, from what a model's one pass over them has left."""

    def __init__(
        self,
        states: Any,
        archetype: np.ndarray,
        to_query: Callable[[Any, np.ndarray], Query],
        batch: int = BATCH,
    ) -> None:
        """Keeps them.

        Args:
          states: float32[U, F], of `encode_users`, or a tree of such arrays.
          archetype: int32[U].
          to_query: (states of B users, archetype int32[B]) to a query.
          batch: B.
        """
        self._states, self._archetype, self._to_query = states, archetype, to_query
        self._batch = min(batch, max(len(archetype), 1))

    def __len__(self) -> int:
        return -(-len(self._archetype) // self._batch)

    def __iter__(self) -> Iterator[tuple[Query, slice, int]]:
        """Yields (Query, slice of the users, number of real rows)."""
        users = len(self._archetype)
        for at in range(0, users, self._batch):
            rows = slice(at, min(at + self._batch, users))
            states = jax.tree.map(lambda a, r=rows: pad_rows(a[r], self._batch), self._states)
            archetype = pad_rows(self._archetype[rows], self._batch)
            yield self._to_query(states, archetype), rows, rows.stop - rows.start


def some_vectors(queries: Queries, count: int = 4096) -> np.ndarray:
    """float32[about count, F], the vectors of queries from all batches alike."""
    each = -(-count // max(len(queries), 1))
    return np.concatenate([np.asarray(query.vector)[: min(each, n)] for query, _, n in queries])


def exact_ranks(
    queries: Queries, index: Index, side: Users, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the targets under exact S1.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      seen: int32[U, H], items to leave out for the second result, padded by 0, or None.

    Returns:
      int32[U] ranks from 1, and ranks without the seen items.
    """
    ranks = np.zeros(len(side), np.int32)
    without = np.zeros(len(side), np.int32)
    for query, rows, n in queries:
        size = len(query.archetype)
        exclude = None if seen is None else pad_rows(seen[rows], size)
        first, second = exact_rank(index, query, pad_rows(side.targets[rows], size), exclude)
        ranks[rows], without[rows] = np.asarray(first)[:n], np.asarray(second)[:n]
    return ranks, without


def rescoring(search: Search, dense: DenseItems, k: int) -> Search:
    """The same search under S2: the R items that it finds are ranked again, k are returned."""

    def again(query: Query) -> Retrieved:
        return rescore(dense, query.dense, search(query), k)

    return again


def rescored_ranks(
    queries: Queries, search: Search, dense: DenseItems, side: Users, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the targets in lists of k under S2, and in the lists that S1 had before.

    Args:
      queries: of the users, with their dense part.
      search: under S1, returning the R items that are ranked again.
      dense: the catalogue's side of the dense term.
      side: the users.
      k: items of a list.

    Returns:
      int32[U] both, 0 where the target is not in the list.
    """
    ranks, before = np.zeros(len(side), np.int32), np.zeros(len(side), np.int32)
    for query, rows, n in queries:
        found = search(query)
        again = rescore(dense, query.dense, found, k)
        targets = side.targets[rows]
        ranks[rows] = target_ranks(np.asarray(again.items)[:n], targets)
        before[rows] = target_ranks(np.asarray(found.items)[:n, :k], targets)
    return ranks, before


def unseen_ranks(queries: Queries, search: Search, side: Users, seen: np.ndarray) -> np.ndarray:
    """Ranks of the targets in what is left of ranked lists without the items a user has seen.

    Args:
      queries: of the users.
      search: returning more items than are to be ranked.
      side: the users.
      seen: int32[U, H], padded by 0.

    Returns:
      int32[U], 0 where the target is not in the list.
    """
    ranks = np.zeros(len(side), np.int32)
    for query, rows, n in queries:
        items = np.asarray(search(query).items)[:n]
        own = seen[rows]
        left = without_seen(items, own[:, (own > 0).any(axis=0)])
        ranks[rows] = target_ranks(left, side.targets[rows])
    return ranks


def run_search(queries: Queries, search: Search, name: str) -> Lists:
    """Searches for all users; the time is that of the search alone, after one warm-up call.

    Args:
      queries: of the users.
      search: one retrieval.
      name: for the progress bar.
    """
    items, scores, scored, seconds, users = [], [], [], 0.0, 0
    for number, (query, _, n) in enumerate(
        tqdm(queries, desc=name, unit="batch", mininterval=2.0, leave=False)
    ):
        jax.block_until_ready(query)
        if number == 0:
            jax.block_until_ready(search(query))
        started = time.perf_counter()
        found = jax.block_until_ready(search(query))
        seconds += time.perf_counter() - started
        users += len(query.archetype)
        items.append(np.asarray(found.items)[:n])
        scores.append(np.asarray(found.scores)[:n])
        scored.append(np.asarray(found.scored)[:n])
    return Lists(
        np.concatenate(items),
        np.concatenate(scores),
        np.concatenate(scored),
        1000 * seconds / max(users, 1),
    )


def compare_searches(
    queries: Queries,
    searches: Mapping[str, Search | None],
    side: Users,
    n_items: int,
    group: str = "retrieval",
) -> tuple[dict[str, Lists], dict[str, Any]]:
    """Runs searches of one score side by side.

    Args:
      queries: of the users.
      searches: name -> search, "exact" among them; None for one that is not installed.
      side: the users.
      n_items: N.
      group: of metrics.

    Returns:
      name -> lists, and a group "<group>.<name>" of metrics each.
    """
    lists: dict[str, Lists] = {}
    metrics: dict[str, Any] = {}
    for name, search in searches.items():
        if search is None:
            metrics[f"{group}.{name}.note"] = f"{name} is not installed"
            print(f"evaluate: {name} is not installed, its row is missing (pip install {name})")
            continue
        lists[name] = run_search(queries, search, f"search {name}")
    best = _ndcg(lists["exact"], side)
    for name, found in lists.items():
        ranks = target_ranks(found.items, side.targets)
        per_user = ranking_metrics(ranks, cutoffs_of(found.items.shape[1]))
        row: dict[str, Any] = {k: float(v.mean()) for k, v in per_user.items()}
        row |= {
            "search_loss": (best - row["ndcg@10"]) / best if best else 0.0,
            "overlap@10": overlap(found.items[:, :10], lists["exact"].items[:, :10]),
            "scored_fraction": float(found.scored.mean()) / n_items,
            "ms_per_user": found.ms_per_user,
        }
        metrics |= named(f"{group}.{name}", row)
    return lists, metrics


def _ndcg(lists: Lists, side: Users) -> float:
    """NDCG@10."""
    return mean_metrics(target_ranks(lists.items, side.targets))["ndcg@10"]


def overlap(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact lists' items that the found lists have: int32[U, k] both."""
    same = (found[:, :, None] == exact[:, None, :]) & (exact[:, None, :] > 0)
    return float(same.any(axis=1).sum() / max((exact > 0).sum(), 1))
