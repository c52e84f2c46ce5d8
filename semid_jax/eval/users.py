"""Who is recommended to, and what comes of it: terms that the evaluation of every model shares."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from semid_jax.eval.ranking import ranking_metrics


@dataclasses.dataclass(frozen=True)
class Users:
    """Users at the moment of a recommendation.

    Attributes:
      users: int64[U], rows of the data set, in the order of this object.
      history: int32[U, T], item numbers, right padded with 0.
      targets: int32[U], what each chose next.
    """

    users: np.ndarray
    history: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the users."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class Lists:
    """Ranked lists of all users by one search.

    Attributes:
      items: int32[U, k].
      scores: float32[U, k].
      scored: int32[U], items the search scored.
      ms_per_user: float, retrieval only, warm, in batches.
    """

    items: np.ndarray
    scores: np.ndarray
    scored: np.ndarray
    ms_per_user: float


def users_bar(users: int, shows: bool) -> Any:
    """A progress bar over users; one that shows nothing where it would lie inside another's."""
    options = {} if shows else {"disable": True}
    return tqdm(total=users, desc="users", unit="user", mininterval=2.0, leave=False, **options)


def pad_rows(a: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row until there are `rows`: one compiled shape for the last batch too."""
    if len(a) == rows:
        return a
    return np.concatenate([a, np.repeat(a[-1:], rows - len(a), axis=0)])


def mean_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Means of the ranking metrics, no intervals: for early stopping."""
    return {name: float(values.mean()) for name, values in ranking_metrics(ranks).items()}
