"""Keeps a finished run as a run of record.

python -m semid_jax.report.keep WORKDIR --experiment=road

writes results/road/….json, and results/ranks/road/….json for `semid_jax.report.compare`. With
--diversity=WORKDIR, of a run on the same data, how diverse each list is in the features of that
run goes along: so lists of models that read other features are measured alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from semid_jax import artifacts
from semid_jax.eval.store import read_evaluation
from semid_jax.features.normalise import read_features
from semid_jax.report.ranks import TestRanks, write_ranks
from semid_jax.report.records import record_of, write_record
from semid_jax.types import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Writes one record and its ranks.

    Args:
      argv: arguments after the program's name; sys.argv's if not given.

    Returns:
      The exit code: 0, or 2 after one line about a wrong input.
    """
    parser = argparse.ArgumentParser(description="Keeps a finished run as a run of record.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--experiment", required=True, help="the folder under results/")
    parser.add_argument("--variant", default="", help="of the model, e.g. no_gate")
    parser.add_argument("--diversity", type=Path, help="a workdir: measure lists by its features")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(argv)
    try:
        path = keep(
            options.workdir,
            options.results,
            options.experiment,
            options.variant,
            options.diversity,
        )
        print(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def keep(
    workdir: Path, results: Path, experiment: str, variant: str = "", diversity: Path | None = None
) -> Path:
    """Writes a finished run's record and its ranks.

    Args:
      workdir: of the run.
      results: the repository's results folder.
      experiment: the folder under it.
      variant: of the model.
      diversity: workdir of a run on the same data, in whose features lists are measured.

    Returns:
      The path of the record.

    Raises:
      InputError: the run has not ended, a file is torn, or `diversity` is of other data.
    """
    record = record_of(workdir, experiment, variant)
    evaluation = read_evaluation(workdir / "evaluation")
    features = None
    if diversity is not None:
        own, other = (artifacts.content_hash(w / "data") for w in (workdir, diversity))
        if own != other:
            raise InputError(f"--diversity={diversity}: a run on other data")
        features = read_features(diversity / "features")
    ranks = TestRanks.of(evaluation, features)  # first, for they may be refused
    path = write_record(results, record)
    write_ranks(path, ranks)
    return path


if __name__ == "__main__":
    sys.exit(main())
