"""The evaluation as an artefact: test is scored once, reports are made from what it left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semid_jax import artifacts
from semid_jax.eval.model import Lists, ReadSide
from semid_jax.eval.run import Evaluation

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
    side, before, lists = evaluation.side, evaluation.before, evaluation.lists
    arrays = {f"side/{f.name}": getattr(side, f.name) for f in dataclasses.fields(side)}
    arrays |= {"before/coarse": before.coarse, "before/fine": before.fine}
    arrays |= {f"lists/{name}": getattr(lists, name) for name in ("items", "scores", "scored")}
    extra = {
        "seconds": seconds,
        "metrics": evaluation.metrics,
        "ms_per_user": lists.ms_per_user,
    }
    artifacts.write(directory, KIND, {**arrays, "fired": evaluation.fired}, inputs, config, extra)


def read_evaluation(directory: Path) -> Evaluation:
    """Reads what `write_evaluation` wrote.

    Raises:
      InputError: it is missing or torn.
    """
    arrays, manifest = artifacts.read(directory, KIND)
    extra = manifest["extra"]
    side = ReadSide(**{f.name: arrays[f"side/{f.name}"] for f in dataclasses.fields(ReadSide)})
    before = dataclasses.replace(side, coarse=arrays["before/coarse"], fine=arrays["before/fine"])
    lists = Lists(
        arrays["lists/items"],
        arrays["lists/scores"],
        arrays["lists/scored"],
        float(extra["ms_per_user"]),
    )
    return Evaluation(dict(extra["metrics"]), side, before, arrays["fired"], lists)
