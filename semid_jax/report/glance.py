"""What the tables of record come to: accuracy by data set, and the times of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semid_jax.report.experiments import experiment_table
from semid_jax.report.records import Record
from semid_jax.report.tables import Column, shown_columns

MAIN = "main"
Table = tuple[list[dict[str, Any]], list[Column]]


def accuracy(records: Sequence[Record]) -> Table:
    """Test NDCG@10 of the main experiment: a row per model, a column per data set.

    Args:
      records: of all experiments.

    Returns:
      Rows, best of the first data set first, and columns; none without such records.
    """
    main = [record for record in records if record.experiment == MAIN]
    datasets = sorted({record.dataset for record in main})
    rows: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        for row in experiment_table([r for r in main if r.dataset == dataset])[0]:
            name = row["model"].split(",")[0]
            rows.setdefault(name, {"model": name})[dataset] = row["ndcg@10"]
    return list(rows.values()), [Column("model"), *(Column(d, best="max") for d in datasets)]


def speed(benchmark: Mapping[str, Any]) -> Table:
    """Medians of every decoder: a row each, columns per batch.

    Args:
      benchmark: one of `load_speed`.

    Returns:
      Rows in the benchmark's order, and columns.
    """
    rows: dict[str, dict[str, Any]] = {}
    for found in benchmark["rows"]:
        row = rows.setdefault(found["decoder"], {"decoder": found["decoder"]})
        row |= {key: found[key] for key in ("recall@10", "items_scored") if key in found}
        for key in ("p50_ms", "ratio", "slower"):
            row[f"{key} {found['batch']}"] = found.get(key)
    columns = [Column("decoder")]
    for batch in sorted({row["batch"] for row in benchmark["rows"]}):
        users = "one user" if batch == 1 else f"{batch} users"
        columns += [
            Column(f"p50_ms {batch}", f"{users}, ms", digits=2),
            Column(f"ratio {batch}", "faster than exact", digits=2),
            Column(f"slower {batch}", "slower than the fastest trunk + search", digits=1),
        ]
    columns.append(Column("recall@10", "Recall@10 of exact", digits=3))
    columns.append(Column("items_scored", "items scored", digits=0))
    return list(rows.values()), shown_columns(columns, list(rows.values()))
