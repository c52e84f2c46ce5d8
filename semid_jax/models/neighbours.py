"""Neighbourhood baselines without training: popularity, item-kNN, modality-kNN.

All three score item i for a user as the mean similarity between i and the last items of the user's
history, counting only the nearest neighbours of each history item. Popularity is the case without
neighbours: what no neighbour decides, ties and items out of reach, goes by popularity, then by the
smaller item number. Nothing of size [N, N] is ever stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse

# Entries of one dense block of scores, float64: 32 MiB.
_BLOCK = 4 * 2**20
# Small against any difference of mean cosines that means something, large against float64 steps.
_TIE_SCALE = 1e-9


@dataclasses.dataclass(frozen=True)
class Histories:
    """What is known of each user, in time order, in compressed rows.

    Attributes:
      items: int32[nnz], item numbers 1..N.
      offsets: int64[U + 1], user u owns items[offsets[u]:offsets[u + 1]].
    """

    items: np.ndarray
    offsets: np.ndarray

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    def without_last(self, count: int) -> Histories:
        """The same users without the last `count` items of each (none goes below empty)."""
        lengths = np.diff(self.offsets)
        kept = np.maximum(lengths - count, 0)
        position = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], lengths)
        items = self.items[position < np.repeat(kept, lengths)]
        return Histories(items, np.concatenate([[0], np.cumsum(kept)]).astype(np.int64))

    def take(self, users: np.ndarray) -> Histories:
        """Some of the users, int64[u], in that order."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Histories(self.items[np.repeat(self.offsets[users], lengths) + inside], offsets)


@dataclasses.dataclass(frozen=True)
class NeighbourTable:
    """The nearest neighbours of every item, nearest first.

    Attributes:
      items: int32[N + 1, n], 0 = no further neighbour; row 0 is padding.
      similarity: float32[N + 1, n], cosines in (0, 1], 0 where there is no neighbour.
    """

    items: np.ndarray
    similarity: np.ndarray

    @property
    def neighbours(self) -> int:
        """n, neighbours kept per item."""
        return self.items.shape[1]

    def nearest(self, neighbours: int) -> NeighbourTable:
        """The table cut to fewer neighbours per item."""
        return NeighbourTable(self.items[:, :neighbours], self.similarity[:, :neighbours])

    def matrix(self) -> scipy.sparse.csr_array:
        """Sparse float64[N + 1, N + 1]: row = history item, column = scored item."""
        real = self.items > 0
        offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
        rows = len(self.items)
        return scipy.sparse.csr_array(
            (self.similarity[real].astype(np.float64), self.items[real], offsets),
            shape=(rows, rows),
        )


def no_neighbours(n_items: int) -> NeighbourTable:
    """The empty table, with which all items rank by popularity."""
    return NeighbourTable(np.zeros((n_items + 1, 0), np.int32), np.zeros((n_items + 1, 0), "f4"))


def fit_item_knn(train: Histories, n_items: int, neighbours: int = 200) -> NeighbourTable:
    """Nearest items by the cosine of who chose them (Sarwar et al. 2001, implicit feedback).

    sim(i, j) = |users of both| / sqrt(|users of i| |users of j|).

    Args:
      train: the training part of every history.
      n_items: N.
      neighbours: kept per item.
    """
    users = np.repeat(np.arange(train.n_users), np.diff(train.offsets))
    chosen = scipy.sparse.csr_array(
        (np.ones(len(users)), (users, train.items)),
        shape=(train.n_users, n_items + 1),
    )
    chosen.sum_duplicates()
    chosen.data[:] = 1.0
    norms = np.sqrt(np.maximum(chosen.sum(axis=0), 1.0))
    chosen.data /= norms[chosen.indices]
    by_item = chosen.T.tocsr()

    def block(start: int, stop: int) -> np.ndarray:
        return (by_item[start:stop] @ chosen).toarray()

    return _nearest(block, n_items, neighbours)


def fit_modality_knn(x: np.ndarray, present: np.ndarray, neighbours: int = 200) -> NeighbourTable:
    """Nearest items by the cosine of their features in one modality.

    Args:
      x: float32[N + 1, d], features, row 0 padding.
      present: bool[N + 1]; an item that lacks the modality has no neighbours and is none.
      neighbours: kept per item; only positive cosines count.
    """
    norms = np.linalg.norm(x, axis=1)
    usable = present & (norms > 0)
    usable[0] = False
    unit = np.where(usable[:, None], x / np.where(usable, norms, 1.0)[:, None], 0.0)
    unit = unit.astype(np.float32)

    def block(start: int, stop: int) -> np.ndarray:
        return unit[start:stop] @ unit.T

    return _nearest(block, len(x) - 1, neighbours)


def rank_targets(
    table: NeighbourTable,
    histories: Histories,
    popularity: np.ndarray,
    targets: np.ndarray,
    last: int = 0,
    exclude_history: bool = False,
) -> np.ndarray:
    """The rank of each user's target among all items.

    They are ranked by mean similarity to the history, then popularity, then number.

    Args:
      table: neighbours of every item.
      histories: what is known of each user.
      popularity: int64[N + 1], decides ties.
      targets: int32[U], 1..N.
      last: history items that count, from the end; 0 = all.
      exclude_history: leave out the items of the history.

    Returns:
      int32[U], from 1; 0 where the target is excluded.
    """
    ranks = np.zeros(histories.n_users, np.int32)
    ties = _tie_scores(popularity)
    ascending = np.sort(ties)
    for start, reached, row, items in _blocks(table, histories, last):
        users = reached.shape[0]
        target = targets[start : start + users]
        own = reached[np.arange(users), target] + ties[target]

        # Only reached items are looked at: the others are in the order of popularity, so that
        # those ahead are counted in it, less the reached ones among them.
        user = np.repeat(np.arange(users), np.diff(reached.indptr))
        item = reached.indices
        count = len(ascending) - np.searchsorted(ascending, own, side="right")
        count -= _ahead(user, item, ties[item], target, own)
        count += _ahead(user, item, reached.data + ties[item], target, own)
        if exclude_history:
            row, items = np.divmod(np.unique(row * len(ties) + items), len(ties))
            # Many look-ups: sparse rows are searched one by one, a dense block is not.
            scores = reached.toarray()[row, items] + ties[items]
            count -= _ahead(row, items, scores, target, own)
            count[row[items == target[row]]] = -1
        ranks[start : start + users] = count + 1
    return ranks


def _blocks(
    table: NeighbourTable, histories: Histories, last: int
) -> Iterator[tuple[int, scipy.sparse.csr_array, np.ndarray, np.ndarray]]:
    """Yields, for blocks of users, the first user, what their history reaches, and that history.

    What is reached is sparse float64[users, N + 1], the mean similarities without ties; the
    history is the row and the item of each entry.
    """
    similarity = table.matrix()
    columns = similarity.shape[0]
    lengths = np.diff(histories.offsets)
    counted = np.minimum(lengths, last) if last else lengths
    weight = 1.0 / np.maximum(counted, 1)
    size = max(1, _BLOCK // columns)
    for start in range(0, histories.n_users, size):
        stop = min(start + size, histories.n_users)
        first, end = histories.offsets[start], histories.offsets[stop]
        items = histories.items[first:end]
        row = np.repeat(np.arange(stop - start), lengths[start:stop])
        from_end = np.repeat(histories.offsets[start + 1 : stop + 1] - first, lengths[start:stop])
        from_end = from_end - np.arange(len(items))
        recent = from_end <= counted[start:stop][row]
        profile = scipy.sparse.csr_array(
            (weight[start:stop][row[recent]], (row[recent], items[recent])),
            shape=(stop - start, columns),
        )
        yield start, profile @ similarity, row, items


def _ahead(
    users: np.ndarray, items: np.ndarray, scores: np.ndarray, targets: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """int64[U], how many of the scored (user, item) pairs int[n] stand before the user's target."""
    tied_before = (scores == own[users]) & (items < targets[users])
    return np.bincount(users[(scores > own[users]) | tied_before], minlength=len(own))


def _tie_scores(popularity: np.ndarray) -> np.ndarray:
    """float64[N + 1]: tiny, larger for more popular items, then for smaller numbers; row 0 -inf."""
    n = len(popularity) - 1
    order = np.argsort(-popularity[1:], kind="stable")
    ties = np.full(n + 1, -np.inf)
    ties[1 + order] = _TIE_SCALE * (1.0 - np.arange(n) / max(n, 1))
    return ties


def _nearest(
    block: Callable[[int, int], np.ndarray], n_items: int, neighbours: int
) -> NeighbourTable:
    """Keeps the best `neighbours` of each row of similarities, computed in blocks of rows."""
    neighbours = min(neighbours, n_items)
    table = NeighbourTable(
        np.zeros((n_items + 1, neighbours), np.int32),
        np.zeros((n_items + 1, neighbours), np.float32),
    )
    size = max(1, _BLOCK // (n_items + 1))
    ties = _TIE_SCALE * np.arange(n_items + 1) / (n_items + 1)
    for start in range(1, n_items + 1, size):
        stop = min(start + size, n_items + 1)
        similarity = block(start, stop)
        similarity[:, 0] = 0.0
        similarity[np.arange(stop - start), np.arange(start, stop)] = 0.0
        # Cosines of counts tie often: the smaller number wins, on every machine.
        similarity = similarity - ties
        best = np.argpartition(similarity, -neighbours, axis=1)[:, -neighbours:]
        values = np.take_along_axis(similarity, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        real = values > 0
        table.items[start:stop] = np.where(real, np.take_along_axis(best, order, axis=1), 0)
        table.similarity[start:stop] = np.where(real, values, 0.0)
    return table
