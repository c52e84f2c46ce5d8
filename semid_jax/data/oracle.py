"""What the best possible observer of a synthetic world knows: the reference of its targets."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.choices import directions, expected_ndcg, log_popularity
from semid_jax.data.synthetic import INTEREST_DRIFT
from semid_jax.types import Interactions

PAIRS = 2**24  # users x (tastes, weights) held at once


def oracle_ndcg(truth: Mapping[str, np.ndarray], k: int = 10) -> float:
    """Expected NDCG@k of ranking by the true p of each user's last interaction.

    Args:
      truth: of a synthetic data set.
      k: cut-off.
    """
    flat, bias = _flat(truth)
    users = directions(
        truth["alpha_end"], truth["taste_end"], truth["prototypes"], bool(truth["control"])
    )
    return float(expected_ndcg(users, flat, bias, float(truth["beta"]), k).mean())


def _flat(truth: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    flat = truth["e_true"].reshape(len(truth["e_true"]), -1)
    return flat, log_popularity(truth["popularity"], float(truth["gamma"]))


def simplex_grid(n_modalities: int, steps: int) -> np.ndarray:
    """float32[G, M], the centres of an even division of the simplex.

    Args:
      n_modalities: M.
      steps: divisions per edge.
    """
    counts = [
        cut for cut in itertools.product(range(steps), repeat=n_modalities) if sum(cut) == steps - 1
    ]
    return ((np.array(counts) + 1 / n_modalities) / steps).astype(np.float32)


def posterior_alpha(
    truth: Mapping[str, np.ndarray],
    interactions: Interactions,
    end: np.ndarray,
    knows_drift: bool = True,
    steps: int = 10,
) -> np.ndarray:
    """Posterior mean of each user's weights, for one that knows all but the user's own parameters.

    Sums over all tastes (topics ** M) and a grid of weights under the prior of the world, uniform
    on both. With p(i) = pop_i^gamma exp(beta alpha . S[i, x]) / Z, the likelihood of a history
    needs only its sum of S and its length.

    Args:
      truth: of a synthetic data set.
      interactions: its histories.
      end: int64[U], how many interactions of each user are seen.
      knows_drift: the observer also knows kind and time of the drift: weights are inferred from
        behind a drift of weights, and from both sides of a drift of interest. If not, it takes
        every user for a constant one.
      steps: divisions of the simplex's edge.

    Returns:
      float32[U, M], at the last seen interaction.
    """
    flat, bias = _flat(truth)
    prototypes = truth["prototypes"]
    n_topics, n_modalities, width = prototypes.shape
    grid = simplex_grid(n_modalities, steps)
    items = flat.reshape(len(flat), n_modalities, width)
    affinity = np.einsum("imq,kmq->ikm", items, prototypes)  # S: item x topic x modality
    beta = float(truth["beta"])
    used = np.full_like(grid, 1 / n_modalities) if bool(truth["control"]) else grid
    tastes = np.array(list(itertools.product(range(n_topics), repeat=n_modalities)))
    log_z = np.stack(
        [_log_normaliser(weights, tastes, prototypes, flat, bias, beta) for weights in used]
    )

    drift_time = truth["drift_time"].astype(np.int64)
    drifted = (truth["drift_kind"] > 0) & (drift_time < end) & knows_drift
    border = np.where(drifted, drift_time, 0)  # segments [0, border) and [border, end)
    evidence = functools.partial(
        _log_evidence, affinity=affinity, log_z=log_z, tastes=tastes, grid=used, beta=beta
    )
    late = evidence(*_segment_sums(interactions, affinity, border, end))
    both = np.flatnonzero(drifted & (truth["drift_kind"] == INTEREST_DRIFT))
    if len(both):
        sums, counts = _segment_sums(interactions, affinity, np.zeros_like(border), border)
        late[both] += evidence(sums[both], counts[both])
    late -= late.max(axis=1, keepdims=True)
    posterior = np.exp(late)
    posterior /= posterior.sum(axis=1, keepdims=True)
    return (posterior @ grid).astype(np.float32)


def _log_normaliser(
    weights: np.ndarray,
    tastes: np.ndarray,
    prototypes: np.ndarray,
    flat: np.ndarray,
    bias: np.ndarray,
    beta: float,
) -> np.ndarray:
    """float32[X], log sum_i of the weights of all items, for every taste under one alpha."""
    users = directions(
        np.broadcast_to(weights, (len(tastes), len(weights))), tastes, prototypes, control=False
    )
    rows = max(PAIRS // len(flat), 1)
    parts = [
        _logsumexp_scores(users[at : at + rows], flat, bias, beta)
        for at in range(0, len(users), rows)
    ]
    return np.concatenate(parts)


@jax.jit
def _logsumexp_scores(users: jax.Array, flat: jax.Array, bias: jax.Array, beta: float) -> jax.Array:
    return jax.nn.logsumexp(beta * (users @ flat.T) + bias, axis=1)


def _segment_sums(
    interactions: Interactions, affinity: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of S over interactions start..end of each user: float32[U, K, M], and counts [U]."""
    lengths = interactions.lengths
    position = np.arange(len(interactions.items)) - np.repeat(interactions.offsets[:-1], lengths)
    user = np.repeat(np.arange(interactions.n_users), lengths)
    inside = (position >= start[user]) & (position < end[user])
    sums = np.zeros((interactions.n_users, *affinity.shape[1:]), np.float64)
    np.add.at(sums, user[inside], affinity[interactions.items[inside]])
    return sums.astype(np.float32), np.bincount(user[inside], minlength=interactions.n_users)


def _log_evidence(
    sums: np.ndarray,
    counts: np.ndarray,
    affinity: np.ndarray,
    log_z: np.ndarray,
    tastes: np.ndarray,
    grid: np.ndarray,
    beta: float,
) -> np.ndarray:
    """float64[U, G], log of the likelihood summed over tastes, up to a constant per user."""
    n_modalities = grid.shape[1]
    rows = max(PAIRS // log_z.size, 1)
    result = np.zeros((len(sums), len(grid)))
    for at in range(0, len(sums), rows):
        chosen = sums[at : at + rows][:, tastes, np.arange(n_modalities)]  # [u, X, M]
        result[at : at + rows] = _evidence_block(
            chosen, counts[at : at + rows].astype(np.float32), log_z, grid, beta
        )
    return result


@jax.jit
def _evidence_block(
    chosen: jax.Array, counts: jax.Array, log_z: jax.Array, grid: jax.Array, beta: float
) -> jax.Array:
    logs = beta * jnp.einsum("uxm,gm->ugx", chosen, grid) - counts[:, None, None] * log_z
    return jax.nn.logsumexp(logs, axis=2)
