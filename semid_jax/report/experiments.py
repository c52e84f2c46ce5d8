"""The table of an experiment: its runs of record, seeds averaged, and what needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from semid_jax.report.records import Record
from semid_jax.report.tables import Column, metric_columns, shown_columns

METRICS = ("ndcg@10", "recall@10", "ndcg@5", "recall@5")


def experiment_table(records: Sequence[Record]) -> tuple[list[dict[str, Any]], list[Column]]:
    """One row per model, its seeds averaged, and one per baseline without training.

    Args:
      records: of one experiment and one data set.

    Returns:
      Rows, best test NDCG@10 first, and the columns that they fill.
    """
    rows = [
        _model_row(model, [record for record in records if record.model == model])
        for model in sorted({record.model for record in records})
    ]
    rows += _neighbourhood_rows(records)
    rows.sort(key=lambda row: -(row.get("ndcg@10") or 0.0))
    columns = [
        Column("model"),
        *metric_columns(METRICS),
        Column("unseen", "NDCG@10, history excluded", best="max"),
        Column("spread", "± NDCG@10 over seeds"),
        Column("validation", "NDCG@10, validation", best="max"),
        Column("search_loss", "lost to exact", percent=True),
        Column("scored", "items scored", digits=3, percent=True),
        Column("alpha", "alpha, of the oracle's", digits=2),
        Column("seeds"),
        Column("parameters"),
        Column("minutes", digits=1),
    ]
    return rows, shown_columns(columns, rows)


def _model_row(model: str, records: Sequence[Record]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": model,
        "seeds": len(records),
        "minutes": mean(record.seconds for record in records) / 60,
        "parameters": records[0].parameters if isinstance(records[0].parameters, int) else None,
    }
    for name, group, field in (
        ("validation", "validation", "ndcg@10"),
        ("search_loss", "search", "loss_ndcg@10"),
        ("scored", "search", "scored_fraction"),
        ("alpha", "pmat", "alpha_spearman_of_oracle"),
    ):
        found = [record.metrics.get(group, {}).get(field) for record in records]
        row[name] = _mean_or_none(found)
    tests = [record.metrics.get("test", {}) for record in records]
    unseen = [record.metrics.get("test_without_history", {}).get("ndcg@10") for record in records]
    row["unseen"] = _mean_or_none(unseen)
    for name in METRICS:
        values = [test[name] for test in tests if test.get(name) is not None]
        row[name] = mean(values) if values else None
        if name == "ndcg@10" and len(values) > 1:
            row["spread"] = stdev(values)
    return row


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if len(found) == len(values) else None


def _neighbourhood_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The baselines without training that runs of record were compared with.

    Features are a setting of the run: where it moves a baseline, its best value is shown, and
    said to be the best of how many. That is in the baseline's favour.
    """
    scores: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # baseline -> model -> groups
    own = {record.model for record in records}
    for record in records:
        without = record.metrics.get("baselines_without_history", {})
        for name, group in record.metrics.get("baselines", {}).items():
            if name in own:
                continue
            group = {**group, "unseen": without.get(name, {}).get("ndcg@10")}
            scores.setdefault(name, {}).setdefault(record.model, []).append(group)
    rows = []
    for name, of_models in sorted(scores.items()):
        found = [
            {m: _mean_or_none([g[m] for g in groups]) for m in (*METRICS, "unseen")}
            for groups in of_models.values()
        ]
        best = max(found, key=lambda row: row["ndcg@10"] or 0.0)
        measured = len({tuple(row.values()) for row in found})
        note = f", best of {measured} measured" if measured > 1 else ""
        rows.append({"model": name + note, **best})
    return rows
