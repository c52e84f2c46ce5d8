"""What an evaluation holds, and the parts of it that do not ask what the model is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from semid_jax.data.sequences import gather_windows, popularity, split_end
from semid_jax.eval.diversity import list_metrics
from semid_jax.eval.model import ReadSide
from semid_jax.eval.ranking import named
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
    interactions: Interactions, features: ItemFeatures, items: np.ndarray
) -> dict[str, Any]:
    """Lists beyond accuracy.

    Args:
      interactions: of the data set.
      features: normalised features.
      items: int32[u, k], the main search's lists.
    """
    counts = popularity(interactions)
    return named("diversity", list_metrics(items, counts, features, interactions.n_users))
