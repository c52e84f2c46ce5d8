"""The results tables of README.md, made from results/.

python -m semid_jax.report.readme            rewrites what stands between the markers
python -m semid_jax.report.readme --check    exit code 1 if README.md is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semid_jax.disk import whole_file
from semid_jax.report import glance
from semid_jax.report.checks import TABLES, check_table
from semid_jax.report.experiments import experiment_table
from semid_jax.report.records import (
    STUDIES,
    UPDATES,
    Record,
    load_paired,
    load_records,
    load_speed,
    load_study,
)
from semid_jax.report.tables import Column, markdown_table, shown_columns
from semid_jax.report.variants import VARIANT_COLUMNS, variant_rows
from semid_jax.types import InputError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
# The order of sections and what they are called; others follow under their own names.
EXPERIMENTS = {
    glance.MAIN: "HDNAG beside the baselines",
    "tokenizers_hdnag": "Tokenizers (i): each one's vectors, our quantiser, HDNAG",
    "tokenizers_gpt2": "Tokenizers (ii): each one's own codes, GPT2",
    "tokenizers_behaviour": "Tokenizers (i), who chose what as one more modality",
    "pmat": "PMAT beside what it could do without",
    "pmat_control": "PMAT in a world whose weights mean nothing",
    "road": "The default run",
    "gpu": "On an H200",
}
# What the names of an experiment's models mean.
NAMES = {
    "pmat": (
        "movielens_1m: six epochs, T = 100. hdnag is PMAT with eight archetypes; static has one "
        "(the main table's model, trained for less long), uniform equal weights for all users, "
        "text and image one modality. synthetic: A = 1 is PMAT with one ID an item, the static "
        "tokenizer is without belief as well."
    ),
}
SPEED_COLUMNS = (
    Column("decoder"),
    Column("n_items", "items"),
    Column("batch"),
    Column("p50_ms", "p50 ms", digits=2),
    Column("p95_ms", "p95 ms", digits=2),
    Column("ratio", "faster than exact", digits=2),
    Column("slower", "slower than the fastest trunk + search", digits=1),
    Column("recall@10", "Recall@10 of exact", digits=3),
    Column("ndcg@10", "NDCG@10"),
    Column("search_loss", "lost to exact", percent=True),
    Column("items_scored", "entries scored", digits=0),
    Column("bytes_touched", "bytes touched", digits=0),
    Column("floor_ms", "floor ms", digits=2),
    Column("over_floor", "x floor", digits=1),
    Column("peak_mib", "peak MiB", digits=0),
    Column("compile_s", "compile s", digits=1),
    Column("build_s", "build s", digits=1),
    Column("build_mib", "build MiB", digits=0),
)
UPDATE_COLUMNS = (
    Column("work"),
    Column("n_items", "items"),
    Column("batch"),
    Column("p50_ms", "p50 ms", digits=2),
    Column("p95_ms", "p95 ms", digits=2),
    Column("first_s", "first call s", digits=1),
    Column("calls"),
    Column("ratio", "x the update", digits=1),
)
_PAIRED_COLUMNS = (
    Column("dataset"),
    Column("pair"),
    Column("metric"),
    Column("difference"),
    Column("interval"),
    Column("relative", percent=True),
    Column("seeds"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrites or checks README.md.

    Args:
      argv: arguments after the program's name; sys.argv's if not given.

    Returns:
      The exit code: 0, 1 if stale under --check, 2 after one line about a wrong input.
    """
    parser = argparse.ArgumentParser(description="Results tables of README.md from results/.")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--check", action="store_true", help="exit 1 if stale, write nothing")
    options = parser.parse_args(argv)
    try:
        old = _read(options.readme)
        new = replace_tables(old, results_markdown(options.results), options.readme)
        if new == old:
            return 0
        if options.check:
            print(
                f"{options.readme} is not what {options.results} says; "
                "run python -m semid_jax.report.readme",
                file=sys.stderr,
            )
            return 1
        with whole_file(options.readme) as temporary:
            temporary.write_text(new, encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def results_markdown(results: Path) -> str:
    """All tables of record in Markdown: what they come to, then a section each, folded.

    Args:
      results: the repository's results folder.
    """
    records, differences = load_records(results), load_paired(results)
    benchmarks, updates = load_speed(results), load_speed(results, UPDATES)
    found = {record.experiment for record in records} | {made["experiment"] for made in differences}
    known = [experiment for experiment in EXPERIMENTS if experiment in found]
    parts = _glance(records, benchmarks)
    for experiment in [*known, *sorted(found - EXPERIMENTS.keys())]:
        of_experiment = [record for record in records if record.experiment == experiment]
        paired = [made for made in differences if made["experiment"] == experiment]
        title = EXPERIMENTS.get(experiment, experiment.replace("_", " "))
        parts += _folded(title, _experiment(experiment, of_experiment, paired))
    for path in sorted((results / STUDIES).glob("*.json")):
        study = load_study(path)
        parts += _folded(f"Study: {study['name'].replace('_', ' ')}", _study(study))
    for speed in sorted(benchmarks, key=glance.by_catalogue):
        title = f"Decoding speed: {glance.catalogue(speed)}"
        columns = shown_columns(SPEED_COLUMNS, speed["rows"])
        parts += _folded(title, _measured(speed, speed["rows"], columns))
    for speed in updates:
        title = "Updates: semantic IDs that follow a user, read sides of the last T items"
        parts += _folded(title, _measured(speed, speed["rows"], UPDATE_COLUMNS))
    return "\n\n".join(parts) if parts else "No runs of record yet."


def _folded(title: str, parts: Sequence[str]) -> list[str]:
    return [f"<details><summary><b>{title}</b></summary>", *parts, "</details>"]


def _glance(records: Sequence[Record], benchmarks: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    rows, columns = glance.accuracy(records)
    if rows:
        about = (
            "Test NDCG@10, full catalogue, mean over seeds; the history not excluded and, beside "
            "it, excluded from the ranking (S2 knows what a user had before, no baseline does):"
        )
        parts += [about, markdown_table(rows, columns)]
    if benchmarks:
        shown = max(benchmarks, key=glance.extent)
        parts.append(f"Medians over calls, {glance.catalogue(shown)}:")
        parts += _measured(shown, *glance.speed(shown))
        parts += [
            "What a faster search is worth, by catalogue, lists of ten by S1:",
            markdown_table(*glance.searches(benchmarks)),
            "What two steps are worth in place of a beam search, by catalogue: GPT2's with the "
            "same trunk, its IDs as short as tells the items apart, or as long as ours; the "
            "faster of two tries. A server takes in an interaction of every user first.",
            markdown_table(*glance.parallel(benchmarks)),
            _machines(made["machine"] for made in benchmarks),
        ]
    return parts


def _experiment(
    experiment: str, records: Sequence[Record], paired: Sequence[Mapping[str, Any]]
) -> list[str]:
    parts = [NAMES[experiment]] if experiment in NAMES else []
    for dataset in sorted({record.dataset for record in records}):
        chosen = [record for record in records if record.dataset == dataset]
        parts.append(f"**{dataset}**, test items, full catalogue, history not excluded:")
        parts.append(markdown_table(*experiment_table(chosen)))
        parts.append(_machines(record.machine for record in chosen))
        for start, (about, checks) in TABLES.items():
            rows, columns = check_table(chosen, checks)
            if experiment.startswith(start) and rows:
                parts += [f"{about}, over seeds:", markdown_table(rows, columns)]
    if paired:
        parts.append("Paired differences, users averaged over seeds, 95 % interval over users:")
        parts.append(markdown_table([_paired_row(made) for made in paired], _PAIRED_COLUMNS))
    return parts


def _study(study: Mapping[str, Any]) -> list[str]:
    rows = variant_rows(study)
    return [
        f"Validation, `{study['base']}` and one switch a row:",
        markdown_table(rows, shown_columns(VARIANT_COLUMNS, rows)),
        _machines(run["machine"] for run in study["runs"]),
    ]


def _measured(
    speed: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]
) -> list[str]:
    about = f"<sub>Measured on {speed['machine']}, revision {speed['revision'][:7]}.</sub>"
    return [markdown_table(rows, columns), about]


def _machines(names: Iterable[str]) -> str:
    return f"<sub>Measured on {'; '.join(sorted(set(names)))}.</sub>"


def _paired_row(made: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = made["ours"], made["theirs"]
    return {
        "dataset": made["dataset"],
        "pair": f"{ours['model']} - {theirs['model']}",
        "metric": made["metric"],
        "difference": f"{made['difference']:+.4f}",
        "interval": f"{made['low']:+.4f} to {made['high']:+.4f}",
        "relative": made["relative"],
        "seeds": f"{len(ours['seeds'])} / {len(theirs['seeds'])}",
    }


def replace_tables(readme: str, tables: str, path: Path = Path("README.md")) -> str:
    """Puts the tables between the markers.

    Raises:
      InputError: a marker is missing, repeated or out of order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InputError(f"{path}: needs the lines {BEGIN} and {END} once each")
    head, rest = readme.split(BEGIN)
    if END not in rest:
        raise InputError(f"{path}: {END} stands before {BEGIN}; swap them")
    return f"{head}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: no such file; run this in the repository's folder") from error


if __name__ == "__main__":
    sys.exit(main())
