"""The table of a study: variants of one configuration, each against the first."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from semid_jax.report.tables import Column, metric_columns

METRICS = ("ndcg@10", "recall@10")
VARIANT_COLUMNS = (
    Column("row"),
    *metric_columns(METRICS),
    Column("spread", "± NDCG@10 over seeds"),
    Column("relative", "against the first", percent=True),
    Column("probed", "cells probed", percent=True, digits=0),
    Column("trained", "best after", percent=True, digits=0),
    Column("seeds"),
    Column("revision"),
)


def variant_rows(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per variant, its seeds averaged.

    A variant is compared with the first one over the seeds that both have.

    Args:
      study: of `load_study`.

    Returns:
      Rows for VARIANT_COLUMNS, in the study's order; revisions where there is more than one.
    """
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in study["runs"]:
        by_row.setdefault(run["row"], {})[run["seed"]] = run
    first = next(iter(by_row.values()), {})
    mixed = len({run["revision"] for run in study["runs"]}) > 1
    rows = []
    for name, runs in by_row.items():
        values = {seed: run["validation"]["ndcg@10"] for seed, run in runs.items()}
        row: dict[str, Any] = {
            "row": name,
            "seeds": len(runs),
            "trained": mean(run["best_step"] / run["steps"] for run in runs.values()),
        }
        for metric in METRICS:
            row[metric] = mean(run["validation"][metric] for run in runs.values())
        if all("probed" in run for run in runs.values()):
            row["probed"] = mean(run["probed"] for run in runs.values())
        if len(values) > 1:
            row["spread"] = stdev(values.values())
        if mixed:
            row["revision"] = ", ".join(sorted({run["revision"][:7] for run in runs.values()}))
        both = values.keys() & first.keys()
        if runs is not first and both:
            base = mean(first[seed]["validation"]["ndcg@10"] for seed in both)
            row["relative"] = mean(values[seed] for seed in both) / base - 1.0
        rows.append(row)
    return rows
