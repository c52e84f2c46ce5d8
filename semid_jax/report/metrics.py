"""results/metrics.json and results/history.jsonl: flat names inside, nested objects on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semid_jax import disk
from semid_jax.types import InputError


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"test.ndcg@10": 0.1} -> {"test": {"ndcg@10": 0.1}}.

    Raises:
      ValueError: a name is also the beginning of another, "a" and "a.b".
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"metric {name}: {group} is a number already")
        if last in place:
            raise ValueError(f"metric {name} is a group of metrics already")
        place[last] = value
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`: {"test": {"ndcg@10": 0.1}} -> {"test.ndcg@10": 0.1}."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def write_metrics(path: Path, flat: Mapping[str, Any]) -> None:
    """Writes metrics under flat names as nested objects; numbers that are not finite as null.

    Args:
      path: results/metrics.json.
      flat: name with dots -> number, e.g. "test.ndcg@10".
    """
    disk.write_json(path, nest(flat))


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads what `write_metrics` wrote, nested.

    Raises:
      InputError: the file is missing or torn.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable metrics; run the evaluation again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object; run the evaluation again")
    return found


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads history.jsonl, one flat mapping per evaluation; a torn last line is left out.

    Raises:
      InputError: a line other than the last is torn.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    history = []
    for number, line in enumerate(lines, 1):
        try:
            history.append(flatten(json.loads(line)))
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is no JSON; delete that line") from error
    return history
