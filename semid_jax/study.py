"""Runs one configuration in several variants and seeds, and keeps their validation in one file.

    python -m semid_jax.study --config=configs/studies/hdnag_ablation.py

--config    a Python file with get_config(arguments) that returns `base`, the arguments of the
            launcher that all rows share, and `rows`, pairs (name, the arguments of that row)
--rows      those to run; all if not given
--seeds     of every row; 0 if not given
--jobs      runs beside each other, for a GPU that has room for more than one; 1 if not given. Of
            several each writes to log.txt in its folder
--workdir   where the runs go; runs/studies/<file>-<arguments> if not given
--results   where the study is kept as studies/<file>-<arguments>.json; results if not given

--record    the name of an experiment: runs are whole ones, and each becomes a run of record there,
            its model's variant named after the row, in place of its validation in the study's file;
            lists are measured in the first row's features

What counts is the validation of what a run would go on with: calibrated, where it calibrates.
Without --record test is left alone. A run that has ended is not repeated, one that was killed goes
on; a study that is interrupted, or told to end by SIGTERM, ends its runs. What the first row of a
seed has made and no model has a part in lies in the other rows' folders when they start: a stage
that would make the same again is skipped, another makes its own. Compiled programs are kept beside
the rows' folders; a row's seeds share them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from semid_jax import artifacts, disk, launch, provenance
from semid_jax.report.experiments import experiment_table
from semid_jax.report.keep import keep
from semid_jax.report.records import STUDIES, load_record, load_records, load_study
from semid_jax.report.tables import Column, shown_columns, text_table
from semid_jax.report.variants import VARIANT_COLUMNS, variant_rows
from semid_jax.types import InputError

SHARED_STAGES = ("data", "expanded", "features", "tokenizer", "baselines")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing of a study and prints its table.

    Args:
      argv: arguments after the program's name; sys.argv's if not given.

    Returns:
      The exit code: 0, 2 after one line about a wrong input, a run's own code if it failed.
    """
    parser = argparse.ArgumentParser(description="Variants of one configuration, by validation.")
    parser.add_argument("--config", required=True, help="FILE[:ARGUMENTS] of the study")
    parser.add_argument("--rows", default="", help="names, comma separated; all if not given")
    parser.add_argument("--seeds", default="0", help="numbers, comma separated")
    parser.add_argument("--record", default="", help="experiment to keep whole runs under")
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(argv)
    try:
        file, _, arguments = options.config.partition(":")
        study = launch.load_config(Path(file), arguments)
        if not {"base", "rows"} <= set(study):
            raise InputError(f"--config={file}: no study; those are in configs/studies/")
        name = "-".join(filter(None, (Path(file).stem, *arguments.split(":"))))
        rows, seeds = _chosen(dict(study.rows), options.rows), _seeds(options.seeds)
        workdir = options.workdir or Path("runs", "studies", name)
        kept = options.results / STUDIES / f"{name}.json"
        first = next(iter(dict(study.rows)))

        records: list[Path] = []
        processes = Processes()

        def arguments_of(row: str, seed: int) -> list[str]:
            own = shlex.split(dict(study.rows)[row])
            made = [*shlex.split(study.base), *own, f"--config.seed={seed}"]
            return made if options.record else [*made, "--config.validate_only=True"]

        def run(row: str, seed: int) -> int:
            arguments = arguments_of(row, seed)
            folder, lender = _folder(workdir, row, seed), _folder(workdir, first, seed)
            beside = options.jobs > 1
            return _run(processes, folder, arguments, seed, row, lender, beside)

        def keep_run(row: str, seed: int) -> None:
            if not options.record:
                _keep(kept, workdir, study.base, list(dict(study.rows)), arguments_of)
                return
            folder, of_first = _folder(workdir, row, seed), _folder(workdir, first, seed)
            measured = of_first if (of_first / "config.json").exists() else None
            records.append(keep(folder, options.results, options.record, row, measured))
            print(records[-1])

        wanted = [(row, seed) for seed in seeds for row in rows]
        code = _run_all(run, wanted, options.jobs, keep_run, processes)
        if code:
            return code
        if options.record:
            print(text_table(*_of_record(options.results, records)))
        else:
            table = variant_rows(load_study(kept))
            print(text_table(table, shown_columns(VARIANT_COLUMNS, table)))
            print(kept)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return launch.BAD_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues", file=sys.stderr)
        return launch.INTERRUPTED
    return 0


class Processes:
    """The runs of a study that go on at the moment.

    Attributes:
      may_start: whether another row may be begun; one that has begun may start its run.
      ended: whether those that went on were told to end.
    """

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.may_start = True
        self.ended = False

    def run(self, command: Sequence[str], **options: Any) -> int:
        """Runs a command to its end, see `subprocess.Popen`; its exit code."""
        with self._lock:
            if self.ended:
                return launch.INTERRUPTED
            process = subprocess.Popen(command, **options)
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.remove(process)
        return code

    def end(self) -> None:
        """Ends those that go on; none is started after."""
        with self._lock:
            self.may_start, self.ended = False, True
            for process in self._running:
                process.terminate()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _chosen(rows: dict[str, str], names: str) -> dict[str, str]:
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(rows)
    for name in wanted:
        if name not in rows:
            raise InputError(f"--rows: no row {name!r}, known are {', '.join(rows)}")
    return {name: rows[name] for name in wanted}


def _seeds(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError as error:
        raise InputError(f"--seeds={text}: expected whole numbers, e.g. --seeds=0,1,2") from error


def _folder(workdir: Path, row: str, seed: int) -> Path:
    return workdir / f"{row.replace(' ', '_')}-{seed}"


def _run_all(
    run: Callable[[str, int], int],
    wanted: Sequence[tuple[str, int]],
    jobs: int,
    keep_run: Callable[[str, int], None],
    processes: Processes,
) -> int:
    """Runs (row, seed) after (row, seed), `jobs` at a time; the code of the first that fails.

    After one that failed none is started, but those that go on may end.

    Args:
      run: (row, seed) to its exit code.
      wanted: rows and seeds.
      jobs: at a time.
      keep_run: called of each that has ended well, in their order.
      processes: of `run`; those that go on are ended where something is raised, as by an interrupt.
    """

    def run_if_any(row: str, seed: int) -> int:
        if not processes.may_start:
            return launch.INTERRUPTED
        code = run(row, seed)
        if code:
            processes.may_start = False
        return code

    pool = ThreadPoolExecutor(max(jobs, 1))
    try:
        runs = [pool.submit(run_if_any, *pair) for pair in wanted]
        for pair, ended in zip(wanted, runs, strict=True):
            if code := ended.result():
                return code
            keep_run(*pair)
    except BaseException:
        processes.end()
        raise
    finally:
        processes.may_start = False
        pool.shutdown()
    return 0


def _run(
    processes: Processes,
    workdir: Path,
    arguments: Sequence[str],
    seed: int,
    row: str,
    lender: Path,
    beside: bool,
) -> int:
    """Trains one variant unless that was done, and notes what validation said; its exit code."""
    done = workdir / "variant.json"
    if done.exists() and json.loads(done.read_text())["arguments"] == arguments:
        return 0
    print(f"--- {row}, seed {seed}: {shlex.join(arguments)}", flush=True)
    artifacts.borrow(workdir, lender, SHARED_STAGES)
    command = [sys.executable, "-m", "semid_jax.launch", *arguments, f"--workdir={workdir}"]
    environment = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # see environment.sh
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent.resolve() / "compiled"),
        **({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if beside else {}),
        **os.environ,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "log.txt", "ab") if beside else contextlib.nullcontext() as log:
        code = processes.run(command, env=environment, stdout=log, stderr=log)
    if code and beside and not processes.ended:
        print(f"error: {row}, seed {seed}: see {workdir / 'log.txt'}", file=sys.stderr)
    if code == 0:
        lines = (workdir / "results" / "history.jsonl").read_text().splitlines()
        evaluations = [json.loads(line) for line in lines]
        best = max(evaluations, key=lambda line: (line["validation.ndcg@10"], line["step"]))
        run = {
            "row": row,
            "seed": seed,
            "arguments": arguments,
            "validation": _validation(workdir, best),
            **_probed(workdir),
            "best_step": best["step"],
            "steps": evaluations[-1]["step"],
            "revision": provenance.revision(),
            "machine": provenance.machine(),
        }
        disk.write_json(done, run)
    return code


def _validation(workdir: Path, best: dict[str, Any]) -> dict[str, float]:
    """The metrics of what the run would go on with: calibrated, or of its best evaluation."""
    if (workdir / "calibration").exists():
        return dict(artifacts.read_extra(workdir / "calibration")["validation"])
    return {k.split(".", 1)[1]: v for k, v in best.items() if k.startswith("validation.")}


def _of_record(results: Path, kept: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Column]]:
    """The table of the experiment and data set that the kept records are of."""
    new = [load_record(path) for path in kept]
    tables = {(record.experiment, record.dataset) for record in new}
    known = load_records(results)
    return experiment_table([r for r in known if (r.experiment, r.dataset) in tables])


def _probed(workdir: Path) -> dict[str, float]:
    """The share of the coarse cells that the search looks into, where validation has chosen it."""
    if not (workdir / "probes").exists():
        return {}
    notes = artifacts.read_extra(workdir / "probes")
    cells = max(int(probes) for probes in notes["losses"])  # all of them are always in the table
    return {"probed": notes["probes"] / cells}


def _keep(
    kept: Path,
    workdir: Path,
    base: str,
    order: list[str],
    arguments_of: Callable[[str, int], list[str]],
) -> None:
    """Puts what has ended into the study's file, beside what it held of other runs of today's rows.

    Args:
      kept: the study's file.
      workdir: of all runs.
      base: what the runs have in common.
      order: rows of the study.
      arguments_of: (row, seed) to a run's arguments; runs of others are left out.
    """
    runs = {}
    if kept.exists():
        runs = {(run["row"], run["seed"]): run for run in load_study(kept)["runs"]}
    for path in sorted(workdir.glob("*/variant.json")):
        run = json.loads(path.read_text())
        runs[run["row"], run["seed"]] = run

    now = [
        run
        for (row, seed), run in runs.items()
        if row in order and run["arguments"] == arguments_of(row, seed)
    ]
    now.sort(key=lambda run: (order.index(run["row"]), run["seed"]))
    disk.write_json(kept, {"base": base, "versions": provenance.versions(), "runs": now})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
