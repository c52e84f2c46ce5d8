"""What an evaluation holds, and the parts of it that do not ask what the model is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from semid_jax.data.sequences import gather_windows, popularity, split_end
from semid_jax.eval.baselines import run_baselines
from semid_jax.eval.diversity import list_metrics
from semid_jax.eval.model import ReadSide
from semid_jax.eval.ranking import named, paired_difference, ranking_metrics, summary
from semid_jax.eval.users import Lists, Users
from semid_jax.types import Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the report needs.

    Attributes:
      metrics: flat name -> value.
      side: the users of the test.
      lists: of the main search, in the order of `side`.
    """

    metrics: dict[str, Any]
    side: Users
    lists: Lists


@dataclasses.dataclass(frozen=True)
class IdEvaluation(Evaluation):
    """The same of a model that reads semantic IDs.

    Attributes:
      side: read sides of the test, after updates.
      before: read sides as they were before.
      fired: bool[U], updated users.
    """

    side: ReadSide
    before: ReadSide
    fired: np.ndarray


def whole_prefix(interactions: Interactions, users: np.ndarray) -> np.ndarray:
    """int32[U, H], everything each user chose before the test item, padded by 0."""
    start = interactions.offsets[users]
    end = start + split_end(interactions, "test")[users]
    return gather_windows(interactions.items, start, end, int((end - start).max()))[0]


def describe_lists(
    interactions: Interactions,
    features: ItemFeatures,
    side: Users,
    lists: Lists,
    per_user: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Lists beyond accuracy, and the model beside the neighbourhood baselines.

    Args:
      interactions: of the data set.
      features: normalised features.
      side: the users of the test.
      lists: the main search's.
      per_user: the model's ranking metrics, float[U] each, in the order of `side`.
    """
    counts = popularity(interactions)
    shown = list_metrics(lists.items, counts, features, interactions.n_users)
    found = compare(interactions, features, counts, side, per_user, lists.items.shape[1])
    return {**named("diversity", shown), **found}


def compare(
    interactions: Interactions,
    features: ItemFeatures,
    counts: np.ndarray,
    side: Users,
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
