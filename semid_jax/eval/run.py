"""The evaluate stage: accuracy, search loss, diversity, semantic IDs, preferences, baselines."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax.data.oracle import oracle_ndcg, posterior_alpha
from semid_jax.data.sequences import gather_windows, popularity, split_end
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index, index_report
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.scann_search import ScannSearcher, available
from semid_jax.eval.baselines import run_baselines
from semid_jax.eval.coarse import coarse_metrics
from semid_jax.eval.diversity import list_metrics
from semid_jax.eval.model import Lists, Queries, ReadSide, Search, exact_ranks, run_search
from semid_jax.eval.preference import drift_scores, spearman_alpha
from semid_jax.eval.ranking import paired_difference, ranking_metrics, summary, target_ranks
from semid_jax.eval.read_sides import churn, read_side
from semid_jax.models.hdnag import Generator
from semid_jax.quantize.health import health
from semid_jax.train.readings import positions_of
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import InputError, Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the report needs.

    Attributes:
      metrics: flat name -> value.
      side: read sides of the test, after updates; `before` is what they were.
      before: see side.
      fired: bool[U], updated users.
      lists: of the main search, in the order of `side`.
    """

    metrics: dict[str, Any]
    side: ReadSide
    before: ReadSide
    fired: np.ndarray
    lists: Lists


def named(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Puts `prefix.` before every name."""
    return {f"{prefix}.{name}": value for name, value in values.items()}


def make_searches(index: Index, config: DecodeConfig, directory: Path) -> dict[str, Search | None]:
    """The searches that the configuration names; None for scann where it is not installed."""
    exact = functools.partial(retrieve_exact, index, k=config.k, chunk=config.chunk)
    searches: dict[str, Search | None] = {}
    for method in config.methods:
        if method == "inverted":
            searches[method] = functools.partial(
                retrieve_inverted, index, probes=config.probes, k=config.k
            )
        elif method == "exact":
            searches[method] = exact
        elif method == "scann":
            searches[method] = None
            if available():
                retrieve = ScannSearcher.build(index, directory).retrieve
                searches[method] = functools.partial(retrieve, probes=config.probes, k=config.k)
        else:
            raise InputError(
                f"decode.methods: {method!r} is unknown; use inverted, scann and exact"
            )
    return {"exact": exact, **searches}


def evaluate(
    raw: RawDataset,
    features: ItemFeatures,
    tokenizer: Tokenizer,
    generator: Generator,
    params: Any,
    index: Index,
    config: DecodeConfig,
    width: int,
    scann_directory: Path,
) -> Evaluation:
    """Scores validation and test of all users; the main search is the first of `methods`.

    Args:
      raw: data set.
      features: normalised features.
      tokenizer: of the run.
      generator: module.
      params: best on validation.
      index: with the model's tables.
      config: searches.
      width: T.
      scann_directory: where ScaNN's files go.
    """
    interactions = raw.interactions
    metrics: dict[str, Any] = {}
    validation, _, _ = read_side(tokenizer, interactions, "validation", width)
    queries = Queries(generator, params, index, validation)
    ranks, _ = exact_ranks(queries, index, validation, None)
    metrics |= named("validation", summary(ranking_metrics(ranks)))
    weight = params["params"]["coarse_weight"]
    coarse = coarse_metrics(queries, index, validation, tokenizer.coarse, weight, config.probes)
    metrics |= named("validation_search", coarse)

    side, before, fired = read_side(tokenizer, interactions, "test", width)
    queries = Queries(generator, params, index, side)
    seen = whole_prefix(interactions, side.users)
    exact, without = exact_ranks(queries, index, side, seen)
    per_user = {"exact": ranking_metrics(exact)}
    metrics |= named("test_without_history", summary(ranking_metrics(without)))

    lists: dict[str, Lists] = {}
    for name, search in make_searches(index, config, scann_directory).items():
        if search is None:
            metrics[f"retrieval.{name}.note"] = "scann is not installed"
            print("evaluate: scann is not installed, its row is missing (Linux: pip install scann)")
            continue
        lists[name] = run_search(queries, search, f"search {name}")
    main = config.methods[0]
    for name, found in lists.items():
        per_user[name] = ranking_metrics(target_ranks(found.items, side.targets))
        row = {k: float(v.mean()) for k, v in per_user[name].items()}
        best = float(per_user["exact"]["ndcg@10"].mean())
        row |= {
            "search_loss": (best - row["ndcg@10"]) / best if best else 0.0,
            "overlap@10": overlap(found.items[:, :10], lists["exact"].items[:, :10]),
            "scored_fraction": float(found.scored.mean()) / interactions.n_items,
            "ms_per_user": found.ms_per_user,
        }
        metrics |= named(f"retrieval.{name}", row)
    metrics |= named("test", summary(per_user[main]))
    metrics |= {
        "search.loss_ndcg@10": metrics[f"retrieval.{main}.search_loss"],
        "search.scored_fraction": metrics[f"retrieval.{main}.scored_fraction"],
        "search.probes": config.probes,
    }
    metrics |= named("latency", {f"{n}_ms_per_user": f.ms_per_user for n, f in lists.items()})
    counts = popularity(interactions)
    shown = list_metrics(lists[main].items, counts, features, interactions.n_users)
    metrics |= named("diversity", shown)
    metrics |= named(
        "sid",
        health(
            tokenizer.book, tokenizer.coarse, tokenizer.fine, tokenizer.points,
            raw.catalogue.categories,
        ),
    )  # fmt: skip
    metrics |= named("index", index_report(index))
    metrics |= named("pmat", preference_metrics(raw, tokenizer))
    metrics |= {
        "pmat.updated_users": float(fired.mean()),
        "pmat.churn": churn(side, before, fired),
    }
    metrics |= compare(interactions, features, counts, side, per_user[main], config.k)
    return Evaluation(metrics, side, before, fired, lists[main])


def whole_prefix(interactions: Interactions, users: np.ndarray) -> np.ndarray:
    """int32[U, H], everything each user chose before the test item, padded by 0."""
    start = interactions.offsets[users]
    end = start + split_end(interactions, "test")[users]
    return gather_windows(interactions.items, start, end, int((end - start).max()))[0]


def overlap(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact lists' items that the found lists have: int32[U, k] both."""
    hits = (found[:, :, None] == exact[:, None, :]) & (exact[:, None, :] > 0)
    return float(hits.any(axis=1).sum() / max((exact > 0).sum(), 1))


def compare(
    interactions: Interactions,
    features: ItemFeatures,
    counts: np.ndarray,
    side: ReadSide,
    model: dict[str, np.ndarray],
    k: int,
) -> dict[str, Any]:
    """The neighbourhood baselines, and the paired difference to the best of them on validation."""
    metrics: dict[str, Any] = {}
    best, best_name, best_users = -1.0, "", np.zeros(0)
    for exclude in (False, True):
        group = "baselines_without_history" if exclude else "baselines"
        for name, result in run_baselines(interactions, features, counts, k, exclude):
            users = ranking_metrics(result.test_ranks)
            metrics |= named(f"{group}.{name}", {**summary(users), **result.setting})
            chosen = float(ranking_metrics(result.validation_ranks)["ndcg@10"].mean())
            if not exclude and chosen > best:
                best, best_name, best_users = chosen, name, users["ndcg@10"]
    gain = paired_difference(model["ndcg@10"], best_users[side.users])
    return {**metrics, "gain.best_baseline": best_name, **named("gain.ndcg@10", gain)}


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
    fired = np.flatnonzero(tokenizer.fired(tokenizer.module.config.window, position))
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)
    # A run of triggers is one: the user's codes have been updated by the first.
    first = np.ones(len(fired), bool)
    first[1:] = (np.diff(fired) > 1) | (np.diff(user[fired]) > 0)
    fired = fired[first]
    metrics |= drift_scores(user[fired], position[fired], truth["drift_time"], truth["drift_kind"])
    return metrics
