"""How much likeness counts in S2, chosen on validation.

In training, free vectors explain what likeness would explain of new histories, so its scales are
learned too small. One factor on all of k_m, and k_z, are read off validation, like the epoch that
is kept. S2 is linear in both, so all pairs are tried in one pass.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.rescoring import DenseItems, dense_scores
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import DenseQuery
from semid_jax.decode.topk import top_k_ties
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.searching import Queries, Search
from semid_jax.eval.users import Users, mean_metrics

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of k_m
SCALES = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0)  # k_z, for items of mean square length one
# (factor, scale), the least first.
CHOICES = tuple(itertools.product(FACTORS, SCALES))


def mean_square(points: np.ndarray) -> float:
    """The mean square length of z: float32[A, N + 1, D_z], row 0 being no item."""
    return float(np.mean(np.sum(points[:, 1:] ** 2, axis=-1)))


def weigh_likeness(params: Any, factor: float, of_z: float) -> Any:
    """Parameters of a generator with a dense term: k_m times a factor, and k_z."""
    inner = params["params"]
    weighed = {"likeness_by": factor * inner["likeness_by"], "likeness_of_z": jnp.float32(of_z)}
    return {**params, "params": {**inner, **weighed}}


def metrics_by_choice(
    queries: Sequence[Queries],
    search: Search,
    dense: DenseItems,
    side: Users,
    k: int,
) -> list[dict[str, float]]:
    """Mean metrics of the lists under S2, likeness weighed by each of CHOICES.

    Args:
      queries: of the users, three times: with k_m = k_z = 0, with k_m as learned, and with k_z
        alone, of scale one.
      search: under S1, returning the R items that are ranked again.
      dense: the catalogue's side of the dense term.
      side: the users.
      k: items of a list.
    """
    ranks = np.zeros((len(CHOICES), len(side)), np.int32)
    for parts in zip(*queries, strict=True):
        (query, rows, n), *_ = parts
        asked = [part.dense for part, _, _ in parts]
        if any(part is None for part in asked):
            raise ValueError("queries without a dense part have no likeness to weigh")
        lists = np.asarray(_lists(dense, asked, search(query), k))[:, :n]
        for of_choice, found in zip(ranks, lists, strict=True):
            of_choice[rows] = target_ranks(found, side.targets[rows])
    return [mean_metrics(of_choice) for of_choice in ranks]


@functools.partial(jax.jit, static_argnames=("k",))
def _lists(dense: DenseItems, asked: Sequence[DenseQuery], found: Retrieved, k: int) -> jax.Array:
    """int32[len(CHOICES), B, k], the best of what was found; asked as `metrics_by_choice` is."""
    plain, by_modality, of_z = (dense_scores(dense, query, found.items) for query in asked)

    def best(choice: jax.Array) -> jax.Array:
        likeness = choice[0] * (by_modality - plain) + choice[1] * (of_z - plain)
        return top_k_ties(found.scores + plain + likeness, found.items, k)[0]

    return jax.lax.map(best, jnp.asarray(CHOICES))
