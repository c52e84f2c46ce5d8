"""Models with dense item vectors evaluated: accuracy over the full catalogue, exact search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from semid_jax.data.sequences import prefixes
from semid_jax.data.source import RawDataset
from semid_jax.decode.dense import dense_rank, retrieve_dense
from semid_jax.eval.evaluation import Evaluation, describe_lists, whole_prefix
from semid_jax.eval.ranking import named, ranking_metrics, summary
from semid_jax.eval.users import BATCH, Lists, Users, encode_users, pad_rows
from semid_jax.types import Interactions, ItemFeatures

# history int32[B, T] to the state after each row's last item, float32[B, F].
Encode = Callable[[np.ndarray], Any]


def make_users(
    interactions: Interactions, split: str, width: int, users: np.ndarray | None = None
) -> Users:
    """Users before a split's target, the short histories first.

    Args:
      interactions: of the data set.
      split: "validation" or "test".
      width: T.
      users: int64[U], default all.
    """
    users = np.arange(interactions.n_users) if users is None else users
    history, lengths, targets = prefixes(interactions, split, width, users)
    order = np.argsort(lengths, kind="stable")
    return Users(users[order], history[order], targets[order])


def user_states(encode: Encode, side: Users, shows_bar: bool = True) -> np.ndarray:
    """float32[U, F], the states of all users, see `encode_users`."""
    return encode_users(side, lambda part, width: encode(part.history[:, :width]), shows_bar)


def dense_ranks(
    vectors: Any, states: np.ndarray, side: Users, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the targets, and ranks without the seen items.

    Args:
      vectors: float32[N + 1, F].
      states: float32[U, F].
      side: the users.
      seen: int32[U, H], padded by 0, or None.

    Returns:
      int32[U] both.
    """
    ranks, without = np.zeros(len(side), np.int32), np.zeros(len(side), np.int32)
    size = min(BATCH, len(side))
    for at in range(0, len(side), size):
        rows = slice(at, min(at + size, len(side)))
        exclude = None if seen is None else pad_rows(seen[rows], size)
        queries, targets = pad_rows(states[rows], size), pad_rows(side.targets[rows], size)
        found = dense_rank(vectors, queries, targets, exclude)
        ranks[rows], without[rows] = (np.asarray(r)[: rows.stop - at] for r in found)
    return ranks, without


def dense_lists(vectors: Any, states: np.ndarray, k: int) -> Lists:
    """Ranked lists of all users; no time is taken, speed belongs to the benchmarks."""
    search = functools.partial(retrieve_dense, vectors, k=k)
    size, items, scores = min(BATCH, len(states)), [], []
    for at in range(0, len(states), size):
        found = search(pad_rows(states[at : at + size], size))
        n = min(size, len(states) - at)
        items.append(np.asarray(found.items)[:n])
        scores.append(np.asarray(found.scores)[:n])
    scored = np.full(len(states), len(vectors) - 1, np.int32)
    return Lists(np.concatenate(items), np.concatenate(scores), scored)


def evaluate_dense(
    raw: RawDataset, features: ItemFeatures, encode: Encode, vectors: Any, width: int, k: int
) -> Evaluation:
    """Scores validation and test of all users.

    Args:
      raw: data set.
      features: normalised features.
      encode: of the trained model.
      vectors: float32[N + 1, F], of its items.
      width: T.
      k: items of a list.
    """
    interactions = raw.interactions
    validation = make_users(interactions, "validation", width)
    ranks, _ = dense_ranks(vectors, user_states(encode, validation), validation)
    metrics: dict[str, Any] = named("validation", summary(ranking_metrics(ranks)))
    side = make_users(interactions, "test", width)
    states = user_states(encode, side)
    ranks, without = dense_ranks(vectors, states, side, whole_prefix(interactions, side.users))
    metrics |= named("test", summary(ranking_metrics(ranks)))
    metrics |= named("test_without_history", summary(ranking_metrics(without)))
    lists = dense_lists(vectors, states, k)
    metrics |= describe_lists(interactions, features, lists.items)
    return Evaluation(metrics, side, lists)
