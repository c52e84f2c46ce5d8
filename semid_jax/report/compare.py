"""The paired difference between two models, over the users of one test split.

    python -m semid_jax.report.compare --ours RECORD… --theirs RECORD… --experiment=main

RECORD are runs of record, results/<experiment>/….json, one per seed; a user's metric is averaged
over a model's seeds, and the interval is over users. Writes
results/paired/<experiment>/<dataset>-<ours>-<theirs>.json, a metric other than NDCG@10 at the
name's end; with --drifted=WORKDIR, of a run on the same synthetic world, of the users alone who
drift in it, and "-drifted" at the name's end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax import disk
from semid_jax.data import builders
from semid_jax.eval.ranking import paired_difference, ranking_metrics
from semid_jax.report.ranks import SHOWN, read_ranks
from semid_jax.report.records import PAIRED, file_stem, load_record
from semid_jax.types import InputError

METRIC = "ndcg@10"


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, prints and writes.

    Args:
      argv: arguments after the program's name; sys.argv's if not given.

    Returns:
      The exit code: 0, or 2 after one line about a wrong input.
    """
    parser = argparse.ArgumentParser(description="Paired difference of two models over users.")
    parser.add_argument("--ours", type=Path, nargs="+", required=True, help="records, by seed")
    parser.add_argument("--theirs", type=Path, nargs="+", required=True, help="records, by seed")
    parser.add_argument("--experiment", required=True, help="the folder under results/paired/")
    parser.add_argument("--metric", default=METRIC)
    parser.add_argument("--drifted", type=Path, help="a workdir: only users with a planted drift")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(argv)
    try:
        users = None if options.drifted is None else drifted_users(options.drifted)
        found = compare(options.ours, options.theirs, options.metric, users)
        names = [found["dataset"], found["ours"]["model"], found["theirs"]["model"]]
        if options.metric != METRIC:
            names.append(options.metric)
        if users is not None:
            found["dataset"] += ", users who drift"
            names.append("drifted")
        path = options.results / PAIRED / options.experiment / f"{file_stem(*names)}.json"
        disk.write_json(path, {"experiment": options.experiment, **found})
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ours, theirs = found["ours"], found["theirs"]
    print(
        f"{found['dataset']}, {found['metric']}: {ours['model']} {ours['mean']:.4f}, "
        f"{theirs['model']} {theirs['mean']:.4f}, difference {found['difference']:+.4f} "
        f"[{found['low']:+.4f}, {found['high']:+.4f}] ({100 * found['relative']:+.1f} %)\n{path}"
    )
    return 0


def drifted_users(workdir: Path) -> np.ndarray:
    """bool[U], who drifts in the synthetic world of a run.

    Raises:
      InputError: no run, or not of the synthetic world.
    """
    truth = builders.read(workdir / "data").truth
    if not truth:
        raise InputError(f"--drifted={workdir}: not of the synthetic world, no drift is planted")
    return np.asarray(truth["drift_kind"] > 0)


def compare(
    ours: Sequence[Path],
    theirs: Sequence[Path],
    metric: str,
    users: np.ndarray | None = None,
) -> dict[str, Any]:
    """The paired difference of two models.

    Args:
      ours: records of one model, one per seed.
      theirs: of the other.
      metric: one of `ranking_metrics`, of the lists of record, or where they are kept with their
        diversity, "intra_list_diversity_<modality>@10".
      users: bool[U], those to compare over; all if not given.

    Returns:
      dataset, metric, users; ours and theirs: model, seeds, commands, revisions, mean; and the
      fields of `paired_difference`.

    Raises:
      InputError: a file is missing or torn, a side mixes models, the test users differ, or the
        metric is unknown.
    """
    sides: list[dict[str, Any]] = []
    means: list[np.ndarray] = []
    split = read_ranks(ours[0]).split
    for paths in (ours, theirs):
        records = [load_record(path) for path in paths]
        for path, record in zip(paths, records, strict=True):
            if record.model != records[0].model:
                raise InputError(f"{path}: of {record.model}, {paths[0]} is of {records[0].model}")
        rows = []
        for path in paths:
            found = read_ranks(path)
            if found.split != split:
                raise InputError(f"{path}: other test users than {ours[0]}")
            if users is not None and len(users) != len(found.ranks):
                raise InputError(f"{path}: {len(found.ranks)} users, not {len(users)}")
            by_name = ranking_metrics(found.ranks)
            for name, of_lists in found.diversity.items():
                by_name[f"intra_list_diversity_{name}@{SHOWN}"] = of_lists.astype(np.float64)
            if metric not in by_name:
                raise InputError(f"--metric: {metric!r} is none of {', '.join(by_name)}")
            rows.append(by_name[metric] if users is None else by_name[metric][users])
        means.append(np.mean(rows, axis=0))
        sides.append(
            {
                "model": records[0].model,
                "seeds": [record.seed for record in records],
                "commands": [record.command for record in records],
                "revisions": [record.revision for record in records],
            }
        )
    told = np.isfinite(means[0]) & np.isfinite(means[1])  # a list of one item has no diversity
    left, right = means[0][told], means[1][told]
    for side, values in zip(sides, (left, right), strict=True):
        side["mean"] = float(values.mean())
    return {
        "dataset": records[0].dataset,
        "metric": metric,
        "users": len(left),
        "ours": sides[0],
        "theirs": sides[1],
        **paired_difference(left, right),
    }


if __name__ == "__main__":
    sys.exit(main())
