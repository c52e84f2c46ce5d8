"""The law by which users of the synthetic world choose: its slope, its best rankings, its draws.

A user with weights alpha[u] over the modalities and a taste x[u, m] in each chooses item i with

    p(i) ~ popularity_i ** gamma * exp(beta * sum_m alpha[u, m] <x[u, m], e*[i, m]>) .
"""

from __future__ import annotations

import numpy as np

from semid_jax.types import InputError

CELLS = 2**22  # users x items held at once
CALIBRATION_USERS = 1024
CALIBRATION_CELLS = 2**26  # users x items to calibrate beta on, which takes fewer users of many
STEEPEST = 100.0  # an upper bound of beta: choices are then all but deterministic


def directions(
    alpha: np.ndarray, taste: np.ndarray, prototypes: np.ndarray, control: bool
) -> np.ndarray:
    """What a user's score is the inner product with: alpha[u, m] x[u, m], side by side.

    Args:
      alpha: float32[S, M].
      taste: int32[S, M], topics.
      prototypes: float32[topics, M, q].
      control: use equal weights instead of alpha.

    Returns:
      float32[S, M q]; its product with e*[i] of the same layout is sum_m alpha_m <x_m, e*[i, m]>.
    """
    n_modalities = prototypes.shape[1]
    weights = np.full_like(alpha, 1 / n_modalities) if control else alpha
    tastes = prototypes[taste, np.arange(n_modalities)]
    return (weights[..., None] * tastes).reshape(len(alpha), -1).astype(np.float32)


def log_popularity(popularity: np.ndarray, gamma: float) -> np.ndarray:
    """float32[N + 1], gamma log popularity, -inf for padding."""
    with np.errstate(divide="ignore"):
        return np.where(popularity > 0, gamma * np.log(popularity), -np.inf).astype(np.float32)


def fit_beta(
    directions: np.ndarray, flat: np.ndarray, bias: np.ndarray, target: float, k: int = 10
) -> float:
    """Bisects for the beta at which ranking by the true p has the wanted expected NDCG@k.

    Args:
      directions: float32[S, M q]; at most 1024 of them are used, fewer for very large N.
      flat: float32[N + 1, M q], e*.
      bias: float32[N + 1], log of popularity ** gamma.
      target: NDCG.
      k: cut-off.

    Raises:
      InputError: out of reach.
    """
    few = directions[: int(np.clip(CALIBRATION_CELLS // len(flat), 32, CALIBRATION_USERS))]
    low, high = 0.0, STEEPEST
    reach = (
        expected_ndcg(few, flat, bias, low, k).mean(),
        expected_ndcg(few, flat, bias, high, k).mean(),
    )
    if not reach[0] < target < reach[1]:
        raise InputError(
            f"synthetic.oracle_ndcg = {target}: this world reaches {reach[0]:.3f} to "
            f"{reach[1]:.3f}; choose between, or lower synthetic.gamma"
        )
    for _ in range(14):  # to 0.006
        middle = (low + high) / 2
        if expected_ndcg(few, flat, bias, middle, k).mean() < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def expected_ndcg(
    directions: np.ndarray, flat: np.ndarray, bias: np.ndarray, beta: float, k: int = 10
) -> np.ndarray:
    """NDCG@k to expect from ranking by the true p, exactly: sum_r p_(r) / log2(r + 1).

    Args:
      directions: float32[S, M q].
      flat: float32[N + 1, M q].
      bias: float32[N + 1].
      beta: slope.
      k: cut-off.

    Returns:
      float64[S].
    """
    total = np.zeros(len(directions))
    best = np.zeros((len(directions), k), np.float32)
    for rows, columns in _blocks(len(directions), len(flat)):
        weights = _weights(directions[rows], flat[columns], bias[columns], bias, beta)
        total[rows] += weights.sum(axis=1, dtype=np.float64)
        seen = np.concatenate([best[rows], weights], axis=1)
        best[rows] = np.partition(seen, seen.shape[1] - k, axis=1)[:, -k:]
    gains = 1 / np.log2(np.arange(2, k + 2))
    return np.sort(best, axis=1)[:, ::-1].astype(np.float64) @ gains / total


def _blocks(n_rows: int, n_columns: int) -> list[tuple[slice, slice]]:
    """Covers rows x columns by blocks of at most CELLS cells, columns outermost."""
    width = min(n_columns, CELLS // 64)
    height = max(CELLS // width, 1)
    return [
        (slice(row, min(row + height, n_rows)), slice(column, min(column + width, n_columns)))
        for column in range(0, n_columns, width)
        for row in range(0, n_rows, height)
    ]


def _weights(
    directions: np.ndarray, flat: np.ndarray, bias: np.ndarray, all_bias: np.ndarray, beta: float
) -> np.ndarray:
    """float32[s, n], proportional to p, by the same factor in every block of items."""
    # Scores lie in [-1, 1]; around 1/2 exp neither overflows nor loses the best, up to STEEPEST.
    logits = np.float32(beta) * (directions @ flat.T - np.float32(0.5))
    logits += bias - all_bias.max()
    return np.exp(logits, out=logits)


def choose_items(
    directions: np.ndarray,
    flat: np.ndarray,
    bias: np.ndarray,
    beta: float,
    segment: np.ndarray,
    uniform: np.ndarray,
) -> np.ndarray:
    """Draws an item per choice, exactly by p, without ever holding choices x items.

    Two passes over blocks of items: the first sums each block's weights, which says in which block
    a choice falls; the second finds the item inside it.

    Args:
      directions: float32[S, M q], one per set of parameters.
      flat: float32[N + 1, M q].
      bias: float32[N + 1].
      beta: slope.
      segment: int64[n], which parameters each choice is made by.
      uniform: float64[n] in [0, 1).

    Returns:
      int32[n], items 1..N.
    """
    used_segments, segment = np.unique(segment, return_inverse=True)
    directions = directions[used_segments]
    blocks = _blocks(len(directions), len(flat))
    starts = np.array(sorted({columns.start for _, columns in blocks}))
    sums = np.zeros((len(directions), len(starts)))
    for rows, columns in blocks:
        place = np.searchsorted(starts, columns.start)
        weights = _weights(directions[rows], flat[columns], bias[columns], bias, beta)
        sums[rows, place] = weights.sum(axis=1, dtype=np.float64)
    edges = np.cumsum(sums, axis=1)
    wanted = uniform * edges[segment, -1]
    block = np.minimum(np.sum(wanted[:, None] >= edges[segment], axis=1), len(starts) - 1)
    rest = wanted - (edges - sums)[segment, block]

    chosen = np.zeros(len(segment), np.int32)
    for rows, columns in blocks:
        place = np.searchsorted(starts, columns.start)
        here = np.flatnonzero((block == place) & (segment >= rows.start) & (segment < rows.stop))
        if not len(here):
            continue
        used, row = np.unique(segment[here], return_inverse=True)
        weights = _weights(directions[used], flat[columns], bias[columns], bias, beta)
        cumulated = np.cumsum(weights, axis=1, dtype=np.float64)
        # Row r of the table lies in (r, r + 1], so one search over all rows is one per row.
        scaled = cumulated / cumulated[:, -1:] + np.arange(len(used))[:, None]
        share = np.minimum(rest[here] / cumulated[row, -1], 1 - 1e-12)
        found = np.searchsorted(scaled.ravel(), row + share, side="right")
        within = np.clip(found - row * weights.shape[1], 0, weights.shape[1] - 1)
        chosen[here] = columns.start + within
    return np.maximum(chosen, 1)
