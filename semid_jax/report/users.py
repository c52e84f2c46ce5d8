"""results/users.json: some users to look at, what they chose, what the model made of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from semid_jax import disk
from semid_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Recommended:
    """One place of a user's list: rank from 1, the item by title and original id, its score."""

    rank: int
    title: str
    item_id: str
    score: float


@dataclasses.dataclass(frozen=True)
class UserStory:
    """One user as the page tells it.

    Attributes:
      user_id: original id.
      history: titles in time order, the last one the newest; the page shows the end of it.
      weights: modality -> alpha now.
      archetype: number of the user's archetype.
      ids_before: semantic IDs (c, f_1 … f_L) of the last items of the history before the update.
      ids_after: the same items' IDs after it; equal where nothing moved.
      recommendations: the head of the list.
      target: title of the item that the user chose next.
      figure: file name in results/figures of this user's weights over time, "" if none.
      note: one line about the user, as what was planted; "" if none.
    """

    user_id: str
    history: Sequence[str]
    weights: dict[str, float]
    archetype: int
    ids_before: Sequence[Sequence[int]]
    ids_after: Sequence[Sequence[int]]
    recommendations: Sequence[Recommended]
    target: str
    figure: str = ""
    note: str = ""


def write_users(path: Path, stories: Sequence[UserStory]) -> None:
    """Writes results/users.json."""
    disk.write_json(path, [dataclasses.asdict(story) for story in stories])


def read_users(path: Path) -> list[UserStory]:
    """Reads results/users.json; no file means no users.

    Raises:
      InputError: the file is torn or of another shape.
    """
    if not path.exists():
        return []
    try:
        return [
            UserStory(
                **{**story, "recommendations": [Recommended(**r) for r in story["recommendations"]]}
            )
            for story in json.loads(path.read_text())
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not a list of users ({error}); run the evaluation again"
        ) from error
