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


@jax.jit
def _alignment(index: Index, query: Any, weight: jax.Array) -> jax.Array:
    mass = cell_masses(index, query)
    head = jax.nn.log_softmax(query.coarse / weight)
    return jnp.sum(mass * (jnp.log(jnp.maximum(mass, 1e-12)) - head), axis=1)


def coarse_metrics(
    queries: Queries, index: Index, side: ReadSide, coarse: np.ndarray, weight: Any, probes: int
) -> dict[str, float]:
    """Recall of the coarse head, and how well it is aligned with the items it stands for.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      coarse: int32[A, N + 1], the write side.
      weight: w of S1, by which a query's coarse table is multiplied.
      probes: P.

    Returns:
      coarse_recall, the share of users whose target lies in the P best cells; alignment_kl, mean
      KL (nats) of the cell masses of the exact softmax on S1 against the coarse head.
    """
    inside, divergence = [], []
    for query, rows, n in queries:
        cell = coarse[side.archetype[rows], side.targets[rows]]
        table = np.asarray(query.coarse)[:n]
        own = np.take_along_axis(table, cell[:, None], axis=1)
        inside.append((table > own).sum(axis=1) < probes)
        divergence.append(np.asarray(_alignment(index, query, jnp.asarray(weight)))[:n])
    return {
        "coarse_recall": float(np.concatenate(inside).mean()),
        "alignment_kl": float(np.concatenate(divergence).mean()),
    }
