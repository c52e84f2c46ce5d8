"""Accuracy of ranked lists: Recall, NDCG and MRR per user, their means and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

CUTOFFS = (1, 5, 10, 20, 50)


def target_ranks(items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Finds each user's target in the user's list.

    Args:
      items: int32[U, k], ranked items, 0 = no item.
      targets: int32[U], the true next items, 1..N.

    Returns:
      int32[U], the rank counted from 1; 0 where the target is not in the list.
    """
    hits = (items == targets[:, None]) & (targets[:, None] > 0)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0).astype(np.int32)


def without_seen(items: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Takes seen items out of ranked lists; what stood behind them moves up.

    Args:
      items: int32[U, k], ranked items, 0 = no item.
      seen: int32[U, H], padded by 0.

    Returns:
      int32[U, k].
    """
    gone = np.zeros(items.shape, bool)
    for column in seen.T:  # H steps; the comparison of all at once would be U x k x H
        gone |= items == column[:, None]
    order = np.argsort(gone, axis=1, kind="stable")
    return np.take_along_axis(np.where(gone, 0, items), order, axis=1)


def cutoffs_of(k: int) -> tuple[int, ...]:
    """The cutoffs that lists of k items can tell."""
    return tuple(cutoff for cutoff in CUTOFFS if cutoff <= k)


def ranking_metrics(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """Turns ranks into metrics of every user, one relevant item each.

    With one relevant item the ideal gain is 1, so NDCG@k = 1 / log2(1 + rank) (Järvelin and
    Kekäläinen 2002) and MRR@k = 1 / rank, both 0 beyond k.

    Args:
      ranks: int[U], 1-based rank of the target, 0 = not in the list.
      cutoffs: list lengths k.

    Returns:
      "recall@k", "ndcg@k", "mrr@k" for every k -> float32[U].
    """
    ranks = np.asarray(ranks)
    safe = np.maximum(ranks, 1).astype(np.float64)
    gain, reciprocal = 1.0 / np.log2(1.0 + safe), 1.0 / safe
    metrics = {}
    for k in cutoffs:
        hit = (ranks >= 1) & (ranks <= k)
        metrics[f"recall@{k}"] = hit.astype(np.float32)
        metrics[f"ndcg@{k}"] = np.where(hit, gain, 0.0).astype(np.float32)
        metrics[f"mrr@{k}"] = np.where(hit, reciprocal, 0.0).astype(np.float32)
    return metrics


def summary(
    per_user: Mapping[str, np.ndarray], resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Means over users with 95 % bootstrap intervals (percentile method, Efron 1979).

    Args:
      per_user: metric name -> float[U]; all of one length.
      resamples: bootstrap samples of U users, drawn with replacement.
      seed: of the resampling.

    Returns:
      For every metric `name`: `name` (mean), `name_low` and `name_high` (ends of the interval).
    """
    names = list(per_user)
    if not names:
        return {}
    columns = np.stack([np.asarray(per_user[name], np.float64) for name in names], axis=1)
    means = columns.mean(axis=0)
    low, high = np.percentile(_resampled_means(columns, resamples, seed), [2.5, 97.5], axis=0)
    result = {}
    for name, mean, lower, upper in zip(names, means, low, high, strict=True):
        result[name] = float(mean)
        result[f"{name}_low"] = float(lower)
        result[f"{name}_high"] = float(upper)
    return result


def list_summary(ranks: np.ndarray, k: int) -> dict[str, float]:
    """`summary` of what lists of k items can tell: ranks int[U], 0 = not in the list."""
    return summary(ranking_metrics(ranks, cutoffs_of(k)))


def paired_difference(
    a: np.ndarray, b: np.ndarray, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """The mean of a - b over the same users, with its 95 % bootstrap interval.

    Args:
      a: float[U], a metric of each user under one system.
      b: float[U], the same metric, users in the same order, under the other.
      resamples: bootstrap samples of users.
      seed: of the resampling.

    Returns:
      "difference", "low", "high", and "relative" = difference / mean of b (0 where b is all 0).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values need the same users: shapes {a.shape} and {b.shape}")
    means = summary({"difference": a - b}, resamples, seed)
    base = float(b.mean())
    return {
        "difference": means["difference"],
        "low": means["difference_low"],
        "high": means["difference_high"],
        "relative": means["difference"] / base if base else 0.0,
    }


def _resampled_means(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """float64[resamples, n]: means of columns f64[U, n] over users drawn with replacement.

    Users with equal rows are interchangeable, so the number of draws per *distinct* row is drawn
    at once from a multinomial: the same distribution as drawing users, at the cost of the few
    distinct ranks instead of the many users.
    """
    rows, counts = np.unique(columns, axis=0, return_counts=True)
    users = len(columns)
    rng = np.random.default_rng(seed)
    means = [
        rng.multinomial(users, counts / users, size=size) @ rows / users
        for size in _chunks(resamples, max(1, 4_000_000 // len(rows)))
    ]
    return np.concatenate(means)


def _chunks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def named(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Puts `prefix.` before every name."""
    return {f"{prefix}.{name}": value for name, value in values.items()}
