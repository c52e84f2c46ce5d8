"""The baselines that need no training, tuned on validation and ranked like the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from semid_jax.data.sequences import popularity
from semid_jax.eval.ranking import named, paired_difference, ranking_metrics, summary
from semid_jax.models.neighbours import (
    Histories,
    NeighbourTable,
    fit_item_knn,
    fit_modality_knn,
    no_neighbours,
    rank_targets,
)
from semid_jax.types import Interactions, ItemFeatures

WITH_HISTORY, WITHOUT_HISTORY = "baselines", "baselines_without_history"
NEIGHBOURS = (50, 200, 1000)
LAST = (1, 2, 5, 10, 50, 0)
TUNING_USERS = 2000  # as many as the generator's early stopping looks at


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What validation chose.

    Attributes:
      table: the neighbour table, cut to the chosen number.
      last: history items that count, 0 = all.
      ndcg: validation NDCG@10 of the choice.
      trials: every setting tried: {"neighbours", "last", "ndcg@10"}.
    """

    table: NeighbourTable
    last: int
    ndcg: float
    trials: list[dict[str, float]]


def tune(
    table: NeighbourTable,
    histories: Histories,
    targets: np.ndarray,
    counts: np.ndarray,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    last: tuple[int, ...] = LAST,
    exclude_history: bool = False,
) -> Tuned:
    """Chooses the number of neighbours and of history items by validation NDCG@10.

    Args:
      table: fitted with the largest number of neighbours wanted.
      histories: of the users, up to the validation item; at most TUNING_USERS of them, evenly
        spaced, are looked at.
      targets: int32[U], the validation items.
      counts: int64[N + 1], how often items are chosen in the training part.
      neighbours: numbers to try; those above the table's own are tried once, as the table's.
      last: numbers of last history items to try, 0 = all.
      exclude_history: rank without the history.

    Returns:
      The best setting; ties go to the earlier one.
    """
    users = np.linspace(0, histories.n_users - 1, min(TUNING_USERS, histories.n_users)).astype(int)
    histories, targets = histories.take(users), targets[users]
    trials = []
    for count in sorted({min(count, table.neighbours) for count in neighbours}):
        for recent in last:
            ranks = rank_targets(
                table.nearest(count), histories, counts, targets, recent, exclude_history
            )
            ndcg = float(ranking_metrics(ranks, (10,))["ndcg@10"].mean())
            trials.append({"neighbours": count, "last": recent, "ndcg@10": ndcg})
    best = max(trials, key=lambda trial: trial["ndcg@10"])
    return Tuned(table.nearest(int(best["neighbours"])), int(best["last"]), best["ndcg@10"], trials)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline's ranks, and how validation set it.

    Attributes:
      validation_ranks: int32[U], rank of the validation item from 1, 0 = excluded.
      test_ranks: int32[U], rank of the test item from 1, 0 = excluded.
      setting: {"neighbours", "last"}, empty for popularity.
    """

    validation_ranks: np.ndarray
    test_ranks: np.ndarray
    setting: dict[str, int]


def run_baselines(
    interactions: Interactions,
    features: ItemFeatures,
    exclude_history: bool = False,
) -> Iterator[tuple[str, Baseline]]:
    """Fits every baseline on the training part, tunes it on validation, and ranks for the test.

    Args:
      interactions: all of them; the last item of each user is the test, the one before validation.
      features: normalised features; each modality gives one baseline.
      exclude_history: leave out what the user already chose.

    Yields:
      (name, result), one after the other as they are done: "popularity", "item_knn", and
      "<modality>_knn" for every modality.
    """
    everything = Histories(interactions.items, interactions.offsets)
    train, known = everything.without_last(2), everything.without_last(1)
    last = interactions.items[interactions.offsets[1:] - 1]
    last_but_one = interactions.items[interactions.offsets[1:] - 2]
    n_items, counts = interactions.n_items, popularity(interactions)
    neighbours = neighbour_budget(n_items)

    def ranked(table: NeighbourTable, recent: int, setting: dict[str, int]) -> Baseline:
        options = (recent, exclude_history)
        return Baseline(
            validation_ranks=rank_targets(table, train, counts, last_but_one, *options),
            test_ranks=rank_targets(table, known, counts, last, *options),
            setting=setting,
        )

    def tuned(table: NeighbourTable) -> Baseline:
        choice = tune(table, train, last_but_one, counts, exclude_history=exclude_history)
        setting = {"neighbours": choice.table.neighbours, "last": choice.last}
        return ranked(choice.table, choice.last, setting)

    yield "popularity", ranked(no_neighbours(n_items), 0, {})
    yield "item_knn", tuned(fit_item_knn(train, n_items, neighbours))
    for name in features.modalities:
        table = fit_modality_knn(features.x[name], features.present[name], neighbours)
        yield f"{name}_knn", tuned(table)


def rank_all(interactions: Interactions, features: ItemFeatures) -> dict[str, Baseline]:
    """All baselines with the history left in, "baselines.<name>", and without it.

    Args:
      interactions: see `run_baselines`.
      features: see `run_baselines`.

    Returns:
      Full name -> baseline; without the history "baselines_without_history.<name>".
    """
    return {
        f"{group}.{name}": baseline
        for exclude, group in ((False, WITH_HISTORY), (True, WITHOUT_HISTORY))
        for name, baseline in run_baselines(interactions, features, exclude)
    }


def compare(
    baselines: Mapping[str, Baseline], model: np.ndarray, users: np.ndarray
) -> dict[str, Any]:
    """Metrics of the baselines, and the model's paired difference to the best on validation.

    Args:
      baselines: of `rank_all`.
      model: float[u], the model's NDCG@10 of each user.
      users: int[u], which users these are.
    """
    metrics: dict[str, Any] = {}
    chosen: dict[str, float] = {}
    for name, baseline in baselines.items():
        found = summary(ranking_metrics(baseline.test_ranks))
        metrics |= named(name, {**found, **baseline.setting})
        if name.startswith(f"{WITH_HISTORY}."):
            on_validation = ranking_metrics(baseline.validation_ranks, (10,))["ndcg@10"]
            chosen[name] = float(on_validation.mean())
    best = max(chosen, key=chosen.__getitem__)
    own = ranking_metrics(baselines[best].test_ranks, (10,))["ndcg@10"][users]
    gain = paired_difference(model, own)
    return {
        **metrics,
        "gain.best_baseline": best.removeprefix(f"{WITH_HISTORY}."),
        **named("gain.ndcg@10", gain),
    }


def to_arrays(baselines: Mapping[str, Baseline]) -> dict[str, np.ndarray]:
    """Baselines as arrays to write; their settings are apart, see `from_arrays`."""
    return {
        f"{name}/{field}": getattr(baseline, field)
        for name, baseline in baselines.items()
        for field in ("validation_ranks", "test_ranks")
    }


def from_arrays(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Mapping[str, int]]
) -> dict[str, Baseline]:
    """Undoes `to_arrays`.

    Args:
      arrays: as written.
      settings: full name -> setting, in the order of the baselines.
    """
    return {
        name: Baseline(
            arrays[f"{name}/validation_ranks"], arrays[f"{name}/test_ranks"], dict(setting)
        )
        for name, setting in settings.items()
    }


def neighbour_budget(n_items: int) -> int:
    """Neighbours per item that a table of at most about 512 MiB holds, between 50 and 1000."""
    return int(np.clip(64 * 2**20 // max(n_items, 1), 50, max(NEIGHBOURS)))
