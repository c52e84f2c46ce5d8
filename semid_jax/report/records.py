"""Runs of record: one JSON file per run under results/, kept in the repository."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semid_jax import disk
from semid_jax.report.metrics import flatten, nest, read_metrics
from semid_jax.types import InputError

MODELS = (
    "hdnag",
    "sasrec",
    "gru4rec",
    "bert4rec",
    "rpg",
    "tiger",
    "gpt2",
    "popularity",
    "item_knn",
)
FEATURES = "_features"  # behind the name of a baseline that reads them
# Folders under results/ of other files than records.
SPEED, PAIRED, STUDIES, RANKS = "decode_speed", "paired", "studies", "ranks"
UPDATES = "update_speed"


@dataclasses.dataclass(frozen=True)
class Record:
    """One run of record.

    Attributes:
      experiment: the folder under results/.
      model: one of MODELS, with FEATURES behind it where they are read, and "/variant".
      dataset: a builder's name, with "/Category" for Amazon.
      seed: of the run.
      command: that repeats it.
      revision: of the repository.
      versions: package -> version.
      machine: in words.
      seconds: wall clock of the whole run.
      parameters: trained numbers of the model, or a nested count.
      metrics: nested, as metrics.json.
    """

    experiment: str
    model: str
    dataset: str
    seed: int
    command: str
    revision: str
    versions: Mapping[str, str]
    machine: str
    seconds: float
    parameters: Any
    metrics: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """<dataset>-<model>-<seed>.json, what is no letter, digit or dot in a name being "_"."""
        return f"{file_stem(self.dataset, self.model)}-{self.seed}.json"


def file_stem(*names: str) -> str:
    """Names joined by hyphens, what is neither letter nor digit in them (nor "." or "@") as "_"."""
    return "-".join(re.sub(r"[^\w.@]+", "_", name) for name in names)


def write_record(results: Path, record: Record) -> Path:
    """Writes results/<experiment>/<dataset>-<model>-<seed>.json.

    Args:
      results: the repository's results folder.
      record: a finished run; its metrics may have nested or flat names.

    Returns:
      The path of the file.

    Raises:
      InputError: the model has no name of MODELS, or the disk is full.
    """
    if record.model.split("/")[0].removesuffix(FEATURES) not in MODELS:
        raise InputError(f"model {record.model!r}: a record's model is one of {', '.join(MODELS)}")
    metrics = nest(flatten(record.metrics))
    path = Path(results) / record.experiment / record.file_name
    disk.write_json(path, dataclasses.replace(record, metrics=metrics))
    return path


def record_of(workdir: Path, experiment: str, variant: str = "") -> Record:
    """What a finished run leaves for the record.

    Args:
      workdir: of the run.
      experiment: the name of the table that the run belongs to.
      variant: of the model, where the run's configuration is not the plain one.

    Raises:
      InputError: the run has not ended, or a file of it is torn.
    """
    made = read_json(workdir / "config.json")
    metrics = read_metrics(workdir / "results" / "metrics.json")
    try:
        data, run = made["config"]["data"], metrics["run"]
        features = made["config"].get("model", {}).get("features", False)
        model = run["model"] + (FEATURES if features else "")
        return Record(
            experiment=experiment,
            model="/".join(filter(None, (model, variant))),
            dataset=dataset_of(data),
            seed=int(run["seed"]),
            command=made["command"],
            revision=made["revision"],
            versions=made["versions"],
            machine=made["machine"],
            seconds=float(run["seconds"]),
            parameters=int(run["parameters"]),
            metrics=metrics,
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{workdir}: no finished run, {error} is missing; run it again") from error


def dataset_of(data: Mapping[str, Any]) -> str:
    """What a data section of a configuration names, with its category: "amazon_2014/Beauty"."""
    return "/".join(filter(None, (data["name"], data.get("category"))))


def load_records(results: Path) -> list[Record]:
    """Reads every run of record below a folder, in order of their paths.

    Files of benchmarks (results/decode_speed, update_speed) are left to `load_speed`, those of
    paired differences (results/paired) to `load_paired`, studies (results/studies) to `load_study`,
    ranks (results/ranks) to `ranks.read_ranks`.

    Raises:
      InputError: a file is torn, lacks a field, or has one too many.
    """
    return [
        load_record(path)
        for path in sorted(Path(results).glob("**/*.json"))
        if path.relative_to(results).parts[0] not in (SPEED, UPDATES, PAIRED, STUDIES, RANKS)
    ]


def load_record(path: Path) -> Record:
    """Reads one run of record.

    Raises:
      InputError: the file is torn, lacks a field, or has one too many.
    """
    found = read_json(path)
    names = {field.name for field in dataclasses.fields(Record)}
    wrong = sorted(names - found.keys()) or sorted(found.keys() - names)
    if wrong:
        word = "lacks" if names - found.keys() else "has unknown"
        raise InputError(f"{path}: the record {word} {', '.join(wrong)}; run it again")
    return Record(**found)


def load_speed(results: Path, kind: str = SPEED) -> list[dict[str, Any]]:
    """Reads results/<kind>/*.json, of a benchmark: {"machine", …, "rows": […]} each.

    Raises:
      InputError: a file is torn or has no rows.
    """
    files = []
    for path in sorted((Path(results) / kind).glob("*.json")):
        found = read_json(path)
        if not isinstance(found.get("rows"), list):
            raise InputError(f"{path}: the benchmark has no rows; run it again")
        files.append({"machine": path.stem, **found})
    return files


def load_paired(results: Path) -> list[dict[str, Any]]:
    """Reads results/paired/*/*.json, as `report.compare` writes them.

    Raises:
      InputError: a file is torn or is no paired difference.
    """
    found = []
    for path in sorted((Path(results) / PAIRED).glob("*/*.json")):
        made = read_json(path)
        if not {"experiment", "dataset", "ours", "theirs", "difference"} <= made.keys():
            raise InputError(f"{path}: no paired difference; run the comparison again")
        found.append(made)
    return found


def load_study(path: Path) -> dict[str, Any]:
    """Reads one file of results/studies, as `semid_jax.study` writes it.

    Raises:
      InputError: the file is torn or is no study.
    """
    made = read_json(path)
    if not isinstance(made.get("runs"), list):
        raise InputError(f"{path}: the study has no runs; delete it or run it again")
    return {"name": path.stem, **made}


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
      InputError: the file cannot be read or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON; delete it or run it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object; delete it or run it again")
    return found
