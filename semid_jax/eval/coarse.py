"""How good the coarse head is: what pruning by cells rests on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.exact import cell_masses
from semid_jax.decode.index import Index
from semid_jax.eval.model import ReadSide
from semid_jax.eval.searching import Queries


def head_metrics(
    queries: Queries, side: ReadSide, coarse: np.ndarray, weight: Any, probes: int
) -> dict[str, float]:
    """What the coarse head knows by itself.

    Args:
      queries: of the users.
      side: the users.
      coarse: int32[A, N + 1], the write side.
      weight: w of S1, by which a query's coarse table is multiplied.
      probes: P.

    Returns:
      coarse_recall, the share of users whose target lies in the P best cells; coarse_entropy, mean
      entropy (nats) of the head.
    """
    inside, entropy = [], []
    for query, rows, n in queries:
        cell = coarse[side.archetype[rows], side.targets[rows]]
        table = np.asarray(query.coarse)[:n]
        own = np.take_along_axis(table, cell[:, None], axis=1)
        inside.append((table > own).sum(axis=1) < probes)
        entropy.append(np.asarray(_entropy(query.coarse, jnp.asarray(weight)))[:n])
    return {
        "coarse_recall": float(np.concatenate(inside).mean()),
        "coarse_entropy": float(np.concatenate(entropy).mean()),
    }


@jax.jit
def _entropy(table: jax.Array, weight: jax.Array) -> jax.Array:
    head = jax.nn.log_softmax(table / weight)
    return -jnp.sum(jnp.exp(head) * head, axis=1)


@jax.jit
def _alignment(index: Index, query: Any, weight: jax.Array) -> jax.Array:
    mass = cell_masses(index, query)
    head = jax.nn.log_softmax(query.coarse / weight)
    return jnp.sum(mass * (jnp.log(jnp.maximum(mass, 1e-12)) - head), axis=1)


def coarse_metrics(
    queries: Queries, index: Index, side: ReadSide, coarse: np.ndarray, weight: Any, probes: int
) -> dict[str, float]:
    """`head_metrics`, and how well the head is aligned with the items it stands for.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      coarse: int32[A, N + 1], the write side.
      weight: w of S1, by which a query's coarse table is multiplied.
      probes: P.

    Returns:
      coarse_recall, coarse_entropy and alignment_kl, mean KL (nats) of the cell masses of the
      exact softmax on S1 against the coarse head.
    """
    divergence = [
        np.asarray(_alignment(index, query, jnp.asarray(weight)))[:n] for query, _, n in queries
    ]
    return {
        **head_metrics(queries, side, coarse, weight, probes),
        "alignment_kl": float(np.concatenate(divergence).mean()),
    }
