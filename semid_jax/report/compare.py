"""The paired difference between two models, over the users of one test split.

    python -m semid_jax.report.compare --ours RUN… --theirs RUN… --experiment=main

RUN are workdirs of finished runs, one per seed; a user's metric is averaged over a model's seeds,
and the interval is over users. Writes results/paired/<experiment>/<dataset>-<ours>-<theirs>.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax import disk
from semid_jax.eval.ranking import paired_difference, ranking_metrics, target_ranks
from semid_jax.eval.store import read_evaluation
from semid_jax.report.records import PAIRED, record_of
from semid_jax.types import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, prints and writes.

    Args:
      argv: arguments after the program's name; sys.argv's if not given.

    Returns:
      The exit code: 0, or 2 after one line about a wrong input.
    """
    parser = argparse.ArgumentParser(description="Paired difference of two models over users.")
    parser.add_argument("--ours", type=Path, nargs="+", required=True, help="workdirs, by seed")
    parser.add_argument("--theirs", type=Path, nargs="+", required=True, help="workdirs, by seed")
    parser.add_argument("--experiment", required=True, help="the folder under results/paired/")
    parser.add_argument("--names", nargs=2, help="of the two models, default run.model")
    parser.add_argument("--metric", default="ndcg@10")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(argv)
    try:
        found = compare(options.ours, options.theirs, options.metric, options.names)
        names = (found["dataset"], found["ours"]["model"], found["theirs"]["model"])
        file = "-".join(name.replace("/", "_") for name in names) + ".json"
        path = options.results / PAIRED / options.experiment / file
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


def compare(
    ours: Sequence[Path], theirs: Sequence[Path], metric: str, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """The paired difference of two models.

    Args:
      ours: workdirs of one model, one per seed.
      theirs: of the other.
      metric: one of `ranking_metrics`, of the lists of record.
      names: of the two, default run.model.

    Returns:
      dataset, metric, users; ours and theirs: model, seeds, commands, revisions, mean; and the
      fields of `paired_difference`.

    Raises:
      InputError: a run has not ended, the data differ, or the metric is unknown.
    """
    sides, means = [], []
    key: tuple[np.ndarray, np.ndarray] | None = None
    for workdirs, name in zip((ours, theirs), names or (None, None), strict=True):
        records = [record_of(workdir, "paired", name or "") for workdir in workdirs]
        rows = []
        for workdir in workdirs:
            users, targets, values = _per_user(workdir, metric)
            key = key or (users, targets)
            if not (np.array_equal(key[0], users) and np.array_equal(key[1], targets)):
                raise InputError(
                    f"{workdir}: other test users than {ours[0]}; compare runs on the same data"
                )
            rows.append(values)
        means.append(np.mean(rows, axis=0))
        sides.append(
            {
                "model": name or str(records[0].metrics["run"]["model"]),
                "seeds": [record.seed for record in records],
                "commands": [record.command for record in records],
                "revisions": [record.revision for record in records],
                "mean": float(means[-1].mean()),
            }
        )
    return {
        "dataset": records[0].dataset,
        "metric": metric,
        "users": len(means[0]),
        "ours": sides[0],
        "theirs": sides[1],
        **paired_difference(*means),
    }


def _per_user(workdir: Path, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users ascending, their targets and their metric."""
    evaluation = read_evaluation(workdir / "evaluation")
    side = evaluation.side
    metrics = ranking_metrics(target_ranks(evaluation.lists.items, side.targets))
    if metric not in metrics:
        raise InputError(f"--metric: {metric!r} is none of {', '.join(metrics)}")
    order = np.argsort(side.users)
    return side.users[order], side.targets[order], metrics[metric][order]


if __name__ == "__main__":
    sys.exit(main())
