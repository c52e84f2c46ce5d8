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


def coarse_metrics(
    queries: Queries,
    side: ReadSide,
    coarse: np.ndarray,
    weight: Any,
    probes: int,
    index: Index | None = None,
) -> dict[str, float]:
    """Recall of the coarse head, how sure it is, how well aligned with the items it stands for.

    Args:
      queries: of the users.
      side: the users.
      coarse: int32[A, N + 1], the write side.
      weight: w of S1, by which a query's coarse table is multiplied.
      probes: P.
      index: with the model's tables; None leaves the alignment out, which scores the catalogue.

    Returns:
      coarse_recall, the share of users whose target lies in the P best cells; coarse_entropy, mean
      entropy (nats) of the head; alignment_kl, mean KL (nats) of the cell masses of the exact
      softmax on S1 against the head.
    """
    found: dict[str, list[np.ndarray]] = {}
    weight = jnp.asarray(weight)
    for query, rows, n in queries:
        cell = coarse[side.archetype[rows], side.targets[rows]]
        table = np.asarray(query.coarse)[:n]
        own = np.take_along_axis(table, cell[:, None], axis=1)
        of_users = {
            "coarse_recall": (table > own).sum(axis=1) < probes,
            "coarse_entropy": np.asarray(_entropy(query.coarse, weight))[:n],
        }
        if index is not None:
            of_users["alignment_kl"] = np.asarray(_alignment(index, query, weight))[:n]
        for name, values in of_users.items():
            found.setdefault(name, []).append(values)
    return {name: float(np.concatenate(parts).mean()) for name, parts in found.items()}


@jax.jit
def _entropy(table: jax.Array, weight: jax.Array) -> jax.Array:
    head = jax.nn.log_softmax(table / weight)
    return -jnp.sum(jnp.exp(head) * head, axis=1)


@jax.jit
def _alignment(index: Index, query: Any, weight: jax.Array) -> jax.Array:
    mass = cell_masses(index, query)
    head = jax.nn.log_softmax(query.coarse / weight)
    return jnp.sum(mass * (jnp.log(jnp.maximum(mass, 1e-12)) - head), axis=1)
