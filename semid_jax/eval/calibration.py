"""How much likeness counts in S2, chosen on validation.

In training, free vectors explain what likeness would explain of new histories, so its scale k is
learned too small. One factor on all of k is read off validation, like the epoch that is kept. S2
is linear in it, so all factors are tried in one pass.
"""

from __future__ import annotations

import functools
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

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def scale_likeness(params: Any, factor: float) -> Any:
    """Parameters of a generator with a dense term, k times a factor."""
    inner = params["params"]
    return {**params, "params": {**inner, "likeness_by": factor * inner["likeness_by"]}}


def metrics_by_factor(
    queries: Queries, without: Queries, search: Search, dense: DenseItems, side: Users, k: int
) -> list[dict[str, float]]:
    """Mean metrics of the lists under S2, k times each of FACTORS.

    Args:
      queries: of the users.
      without: the same with k = 0.
      search: under S1, returning the R items that are ranked again.
      dense: the catalogue's side of the dense term.
      side: the users.
      k: items of a list.
    """
    ranks = np.zeros((len(FACTORS), len(side)), np.int32)
    for (query, rows, n), (bare, _, _) in zip(queries, without, strict=True):
        if query.dense is None or bare.dense is None:
            raise ValueError("queries without a dense part have no likeness to weigh")
        lists = np.asarray(_lists(dense, query.dense, bare.dense, search(query), k))[:, :n]
        for of_factor, found in zip(ranks, lists, strict=True):
            of_factor[rows] = target_ranks(found, side.targets[rows])
    return [mean_metrics(of_factor) for of_factor in ranks]


@functools.partial(jax.jit, static_argnames=("k",))
def _lists(
    dense: DenseItems, query: DenseQuery, without: DenseQuery, found: Retrieved, k: int
) -> jax.Array:
    """int32[F, B, k], the best of what was found, under each factor."""
    rest = dense_scores(dense, without, found.items)
    likeness = dense_scores(dense, query, found.items) - rest
    return jnp.stack(
        [
            top_k_ties(found.scores + rest + factor * likeness, found.items, k)[0]
            for factor in FACTORS
        ]
    )
