"""The evaluation as an artefact: test is scored once, reports are made from what it left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semid_jax import artifacts
from semid_jax.eval.evaluation import Evaluation, IdEvaluation
from semid_jax.eval.model import ReadSide
from semid_jax.eval.users import Lists, Users
from semid_jax.types import InputError

KIND = "evaluation"


def write_evaluation(
    directory: Path,
    evaluation: Evaluation,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    seconds: float,
) -> None:
    """Writes one evaluation.

    Args:
      directory: the artefact.
      evaluation: what `evaluate` returned.
      inputs: content hashes of what it was made from.
      config: the settings that it depends on.
      seconds: it took.
    """
    side, lists = evaluation.side, evaluation.lists
    arrays = {f"side/{f.name}": getattr(side, f.name) for f in dataclasses.fields(side)}
    if isinstance(evaluation, IdEvaluation):
        before = evaluation.before
        arrays |= {"before/coarse": before.coarse, "before/fine": before.fine}
        arrays["fired"] = evaluation.fired
    arrays |= {f"lists/{name}": getattr(lists, name) for name in ("items", "scores", "scored")}
    extra = {
        "seconds": seconds,
        "metrics": evaluation.metrics,
        "ms_per_user": lists.ms_per_user,
    }
    artifacts.write(directory, KIND, arrays, inputs, config, extra)


def read_evaluation(directory: Path) -> Evaluation:
    """Reads what `write_evaluation` wrote.

    Raises:
      InputError: it is missing, torn, or was written before something was added to it.
    """
    arrays, manifest = artifacts.read(directory, KIND)
    extra = manifest["extra"]
    kind = ReadSide if "side/coarse" in arrays else Users
    lacking = [f.name for f in dataclasses.fields(kind) if f"side/{f.name}" not in arrays]
    if lacking:
        raise InputError(
            f"{directory}: of an older revision, lacks {', '.join(lacking)}; use the revision that "
            "its run's config.json names, or run again"
        )
    side = kind(**{f.name: arrays[f"side/{f.name}"] for f in dataclasses.fields(kind)})
    lists = Lists(
        arrays["lists/items"],
        arrays["lists/scores"],
        arrays["lists/scored"],
        extra["ms_per_user"],
    )
    metrics = dict(extra["metrics"])
    if not isinstance(side, ReadSide):
        return Evaluation(metrics, side, lists)
    before = dataclasses.replace(side, coarse=arrays["before/coarse"], fine=arrays["before/fine"])
    return IdEvaluation(metrics, side, lists, before, arrays["fired"])
