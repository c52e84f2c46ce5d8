"""RPG evaluated: exact ranking of the full catalogue, and its graph search beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.source import RawDataset
from semid_jax.decode.config import GraphConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.rpg_graph import build_graph, retrieve_rpg_graph
from semid_jax.decode.score import Query, make_query
from semid_jax.eval.dense import make_users, user_states
from semid_jax.eval.evaluation import Evaluation, describe_lists, whole_prefix
from semid_jax.eval.ranking import (
    list_summary,
    named,
    ranking_metrics,
    summary,
    target_ranks,
)
from semid_jax.eval.searching import Queries, Search, compare_searches, exact_ranks
from semid_jax.eval.users import Users
from semid_jax.models.rpg import Rpg
from semid_jax.quantize.static import StaticIds, static_health
from semid_jax.types import ItemFeatures


@functools.partial(jax.jit, static_argnames=("model",))
def _last(model: Rpg, params: Any, fine: jax.Array, history: jax.Array) -> jax.Array:
    state: jax.Array = model.apply(params, fine[history], history > 0, method="last")
    return state


@functools.partial(jax.jit, static_argnames=("model",))
def _vector(model: Rpg, params: Any, states: jax.Array) -> jax.Array:
    heads = model.apply(params, states, method="digit_queries").reshape(len(states), -1)
    ends = jnp.zeros((len(states), 1)), jnp.ones((len(states), 1))
    return jnp.concatenate([ends[0], heads, ends[1]], axis=1)


def rpg_queries(
    model: Rpg, params: Any, index: Index, fine: jax.Array, side: Users, shows_bar: bool = True
) -> Queries:
    """Queries of all users; the trunk runs once per user, here.

    Args:
      model: module.
      params: its parameters.
      index: one cell, see `models.rpg`, with the model's tables.
      fine: uint8[N + 1, L], the catalogue.
      side: the users.
      shows_bar: False where the progress bar would lie inside another one's line.
    """
    encode = functools.partial(_last, model, params, fine)

    def to_query(states: np.ndarray, archetype: np.ndarray) -> Query:
        return make_query(_vector(model, params, states), index.tables, archetype)

    return Queries(user_states(encode, side, shows_bar), np.zeros(len(side), np.int32), to_query)


def make_searches(index: Index, config: GraphConfig, seed: int) -> dict[str, Search]:
    """The searches that the configuration names, "exact" always among them."""
    searches: dict[str, Search] = {
        "exact": functools.partial(retrieve_exact, index, k=config.k, chunk=config.chunk)
    }
    for method in config.methods:
        if method == "rpg_graph":
            searches[method] = functools.partial(
                retrieve_rpg_graph, index, build_graph(index, config.edges),
                k=config.k, beam=config.beam, hops=config.hops, seed=seed,
            )  # fmt: skip
    return searches


def evaluate_rpg(
    raw: RawDataset,
    features: ItemFeatures,
    ids: StaticIds,
    queries: Callable[[Users], Queries],
    index: Index,
    config: GraphConfig,
    width: int,
    seed: int,
) -> Evaluation:
    """Scores validation and test of all users; the main search is the first of `methods`.

    Args:
      raw: data set.
      features: normalised features.
      ids: of the catalogue.
      queries: of users, by the trained model.
      index: with the model's tables.
      config: searches.
      width: T.
      seed: of the graph search.
    """
    interactions = raw.interactions
    validation = make_users(interactions, "validation", width)
    ranks, _ = exact_ranks(queries(validation), index, validation)
    metrics: dict[str, Any] = named("validation", summary(ranking_metrics(ranks)))
    side = make_users(interactions, "test", width)
    of_test = queries(side)
    _, without = exact_ranks(of_test, index, side, whole_prefix(interactions, side.users))
    metrics |= named("test_without_history", summary(ranking_metrics(without)))
    searches = make_searches(index, config, seed)
    lists, rows = compare_searches(of_test, searches, side, interactions.n_items)
    metrics |= rows
    main = lists[config.methods[0]]
    metrics |= named("test", list_summary(target_ranks(main.items, side.targets), config.k))
    metrics |= named("latency", {f"{n}_ms_per_user": f.ms_per_user for n, f in lists.items()})
    metrics |= named("sid", static_health(ids, raw.catalogue.categories))
    metrics |= describe_lists(interactions, features, main.items)
    return Evaluation(metrics, side, main)
