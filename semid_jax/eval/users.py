"""Who is recommended to, and what comes of it: terms that the evaluation of every model shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from semid_jax.eval.ranking import ranking_metrics
from semid_jax.turns import widths_of

BATCH = 256  # users of a search
POSITIONS = 16384  # of a pass of a model: bounds memory at any history length


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
      ms_per_user: retrieval only, warm, in batches; None where no time was taken.
    """

    items: np.ndarray
    scores: np.ndarray
    scored: np.ndarray
    ms_per_user: float | None = None


Kind = TypeVar("Kind", bound=Users)


def encode_users(
    side: Kind,
    encode: Callable[[Kind, int], Any],
    shows_bar: bool = True,
    positions: int | None = None,
) -> Any:
    """Runs a model over all users in batches of bounded memory, few shapes and little padding.

    A batch holds neighbours of `side`, so users of like length should lie together. It is padded
    to one of `widths_of` T.

    Args:
      side: the users.
      encode: (some of them, the width that holds their histories) to an array [B, ...], or a
        tree of them.
      shows_bar: False where it would lie inside another progress bar's line.
      positions: of a batch, default POSITIONS.

    Returns:
      The same, [U, ...], in the order of `side`.
    """
    widths = widths_of(side.history.shape[1])
    lengths = (side.history > 0).sum(axis=1)
    options = {} if shows_bar else {"disable": True}
    bar = tqdm(total=len(side), desc="users", unit="user", mininterval=2.0, leave=False, **options)
    found, at = [], 0
    while at < len(side):
        width = next(w for w in widths if w >= lengths[at])
        rows = min(max((positions or POSITIONS) // width, 1), len(side))
        longer = np.flatnonzero(lengths[at : at + rows] > width)
        end = min(at + (int(longer[0]) if len(longer) else rows), len(side))
        # The last row again and again: one compiled shape per width.
        part = side.take(np.minimum(np.arange(at, at + rows), end - 1))
        n = end - at
        found.append(jax.tree.map(lambda a, n=n: np.asarray(a)[:n], encode(part, width)))
        bar.update(end - at)
        at = end
    bar.close()
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def pad_rows(a: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row until there are `rows`: one compiled shape for the last batch too."""
    if len(a) == rows:
        return a
    return np.concatenate([a, np.repeat(a[-1:], rows - len(a), axis=0)])


def mean_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Means of the ranking metrics, no intervals: for early stopping."""
    return {name: float(values.mean()) for name, values in ranking_metrics(ranks).items()}
