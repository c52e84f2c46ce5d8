"""HDNAG evaluated: accuracy, search loss, semantic IDs, preferences."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from semid_jax.data.oracle import oracle_ndcg, posterior_alpha
from semid_jax.data.sequences import split_end
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index, index_report
from semid_jax.decode.methods import retrieve
from semid_jax.decode.rescoring import DenseItems
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.scann_search import ScannSearcher, available
from semid_jax.decode.sketch import Sketch
from semid_jax.eval.coarse import coarse_metrics
from semid_jax.eval.evaluation import IdEvaluation, describe_lists, whole_prefix
from semid_jax.eval.model import Model, ReadSide, dense_items, hdnag_queries
from semid_jax.eval.preference import drift_scores, spearman_alpha
from semid_jax.eval.ranking import list_summary, named, target_ranks
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.reliability import split_half
from semid_jax.eval.searching import (
    Queries,
    Search,
    compare_searches,
    exact_ranks,
    rescored_ranks,
    rescoring,
    unseen_ranks,
)
from semid_jax.eval.updates import can_change, update_metrics, update_sweep
from semid_jax.eval.users import Users
from semid_jax.quantize.health import health
from semid_jax.train.readings import make_perceiver, positions_of
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.streaming import make_streamer
from semid_jax.types import ItemFeatures

UNSEEN = 500  # items ranked again, of which those that a user has had are left out
SPLIT_SEED = 0  # of the random halves of histories: the same in every run


def make_searches(
    index: Index, config: DecodeConfig, directory: Path, sketches: Mapping[str, Sketch]
) -> dict[str, Callable[..., Retrieved] | None]:
    """The searches that the configuration names; None for scann where it is not installed.

    Args:
      index: with the model's tables.
      config: searches.
      directory: where ScaNN's files go.
      sketches: of the index, by the search that reads it; see `build_sketch`.

    Returns:
      Name -> search, of a query and k, the items returned.
    """
    searches: dict[str, Callable[..., Retrieved] | None] = {}
    for method in ("exact", *config.methods):
        if method == "scann":
            searches[method] = None
            if available():
                found = ScannSearcher.build(index, directory).retrieve
                searches[method] = functools.partial(found, probes=config.probes)
        else:
            searches[method] = functools.partial(
                retrieve, index, sketches.get(method), method=method, config=config
            )
    return searches


def finding(
    searches: Mapping[str, Callable[..., Retrieved] | None], k: int
) -> dict[str, Search | None]:
    """The same searches returning k items."""
    return {name: search and functools.partial(search, k=k) for name, search in searches.items()}


def validation_ranks(
    queries: Queries,
    index: Index,
    side: Users,
    dense: DenseItems | None,
    config: DecodeConfig,
) -> dict[str, np.ndarray]:
    """Ranks of the targets under exact search.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      dense: the catalogue's side of the dense term; None where S1 is all there is.
      config: searches.

    Returns:
      "validation": int32[U] under the model's whole score; where that is S2, lists of k, and
      "validation_s1", the same under S1.
    """
    if dense is None:
        return {"validation": exact_ranks(queries, index, side)[0]}
    exact = functools.partial(retrieve_exact, index, k=config.rescored, chunk=config.chunk)
    s2, s1 = rescored_ranks(queries, exact, dense, side, config.k)
    return {"validation": s2, "validation_s1": s1}


def evaluate(
    raw: RawDataset,
    features: ItemFeatures,
    tokenizer: Tokenizer,
    model: Model,
    index: Index,
    sketches: Mapping[str, Sketch],
    config: DecodeConfig,
    width: int,
    scann_directory: Path,
) -> IdEvaluation:
    """Scores validation and test of all users; the main search is the first of `methods`.

    Without history: of S1, by exact search; of S2, what is left of UNSEEN items ranked again.

    Args:
      raw: data set.
      features: normalised features.
      tokenizer: of the run.
      model: best on validation.
      index: with the model's tables.
      sketches: of the index, by the search that reads it.
      config: searches.
      width: T.
      scann_directory: where ScaNN's files go.
    """
    interactions, told = raw.interactions, functools.partial(list_summary, k=config.k)
    dense = dense_items(model)
    validation, _, _ = read_side(tokenizer, interactions, "validation", width)
    queries = hdnag_queries(model, index, validation)
    metrics: dict[str, Any] = {}
    for name, ranks in validation_ranks(queries, index, validation, dense, config).items():
        metrics |= named(name, told(ranks))
    weight = model.params["params"]["coarse_weight"]
    of_head = validation, tokenizer.coarse, weight, config.probes
    coarse = coarse_metrics(queries, *of_head, index)
    metrics |= named("validation_search", coarse)

    side, before, fired = read_side(tokenizer, interactions, "test", width)
    queries = hdnag_queries(model, index, side)
    seen = whole_prefix(interactions, side.users)
    _, without = exact_ranks(queries, index, side, seen)
    searches = make_searches(index, config, scann_directory, sketches)
    narrow = finding(searches, config.k)
    lists, rows = compare_searches(queries, narrow, side, interactions.n_items)
    metrics |= rows
    main, ranking = config.methods[0], "retrieval"
    shown = lists[main]
    latency = {f"{n}_ms_per_user": f.ms_per_user for n, f in lists.items()}
    if dense is not None:
        metrics |= named("test_s1", told(target_ranks(shown.items, side.targets)))
        metrics |= named("test_s1_without_history", told(without))
        wide = finding(searches, config.rescored)
        again = {
            name: search and rescoring(search, dense, config.k) for name, search in wide.items()
        }
        ranking = "retrieval_s2"
        lists, rows = compare_searches(queries, again, side, interactions.n_items, ranking)
        metrics |= rows
        shown = lists[main]
        latency |= {f"{n}_s2_ms_per_user": f.ms_per_user for n, f in lists.items()}
        if (of_record := searches[main]) is not None:
            most = max(config.rescored, UNSEEN)
            whole = rescoring(functools.partial(of_record, k=most), dense, most)
            without = unseen_ranks(queries, whole, side, seen)
    ranks = target_ranks(shown.items, side.targets)
    metrics |= named("test", told(ranks))
    metrics |= named("test_without_history", told(without))
    metrics |= {
        "search.loss_ndcg@10": metrics[f"{ranking}.{main}.search_loss"],
        "search.scored_fraction": metrics[f"{ranking}.{main}.scored_fraction"],
        "search.probes": config.probes,
    }
    metrics |= named("latency", latency)
    metrics |= named(
        "sid",
        health(
            tokenizer.book, tokenizer.coarse, tokenizer.fine, tokenizer.points,
            raw.catalogue.categories,
        ),
    )  # fmt: skip
    metrics |= named("index", index_report(index))
    metrics |= named("pmat", preference_metrics(raw, tokenizer))
    if not tokenizer.module.config.uniform:  # equal weights differ by rounding alone
        of_halves = split_half(make_perceiver(tokenizer.frozen), features, interactions, SPLIT_SEED)
        metrics |= named("pmat", of_halves)

    def rank(part: ReadSide) -> np.ndarray:
        asked = hdnag_queries(model, index, part, shows_bar=False)
        return validation_ranks(asked, index, part, dense, config)["validation"]

    metrics |= named("pmat", update_metrics(tokenizer, side, before, fired, rank))
    if can_change(tokenizer):
        streamer = make_streamer(tokenizer)

        def read(**changes: float) -> ReadSide:
            values = {name: jnp.float32(value) for name, value in changes.items()}
            other = dataclasses.replace(streamer, **values)
            return read_side(tokenizer, interactions, "test", width, streamer=other)[0]

        metrics |= named("pmat", update_sweep(tokenizer, read, before, fired, rank))
    if raw.truth:
        drifted = raw.truth["drift_kind"][side.users] > 0
        for name, rows in (("test_drifted", drifted), ("test_steady", ~drifted)):
            if rows.any():
                metrics |= named(name, told(ranks[rows]))
    metrics |= describe_lists(interactions, features, shown.items)
    return IdEvaluation(metrics, side, shown, before, fired)


def preference_metrics(raw: RawDataset, tokenizer: Tokenizer) -> dict[str, Any]:
    """How PMAT's weights are spread, and, where the truth is planted, how true they are."""
    interactions, readings = raw.interactions, tokenizer.readings
    end = split_end(interactions, "test")
    at = interactions.offsets[:-1] + end
    alpha = readings.alpha[at]
    names = tokenizer.module.modalities
    metrics: dict[str, Any] = {
        **{f"alpha_mean_{name}": float(alpha[:, m].mean()) for m, name in enumerate(names)},
        **{f"alpha_deviation_{name}": float(alpha[:, m].std()) for m, name in enumerate(names)},
    }
    if not raw.truth:
        return metrics
    truth = raw.truth
    enough = end >= 20
    planted = truth["alpha_end"]
    oracle = posterior_alpha(truth, interactions, end)
    blind = posterior_alpha(truth, interactions, end, knows_drift=False)
    learned = spearman_alpha(alpha, planted, enough)
    constant = enough & (truth["drift_kind"] != 1)
    metrics |= {
        "alpha_spearman": learned,
        "alpha_spearman_oracle": spearman_alpha(oracle, planted, enough),
        "alpha_spearman_oracle_blind": spearman_alpha(blind, planted, enough),
        "alpha_spearman_constant": spearman_alpha(alpha, planted, constant),
        "alpha_spearman_oracle_constant": spearman_alpha(oracle, planted, constant),
        "oracle_ndcg@10": oracle_ndcg(truth),
    }
    if metrics["alpha_spearman_oracle"] > 0.1:
        metrics["alpha_spearman_of_oracle"] = learned / metrics["alpha_spearman_oracle"]
    position = positions_of(interactions)
    fired = np.flatnonzero(readings.fired)
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)
    metrics |= drift_scores(user[fired], position[fired], truth["drift_time"], truth["drift_kind"])
    return metrics
