"""What the tables of record come to: accuracy by data set, times by decoder and by catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semid_jax.report.experiments import experiment_table
from semid_jax.report.records import Record, dataset_of
from semid_jax.report.tables import Column, shown_columns

MAIN = "main"
Table = tuple[list[dict[str, Any]], list[Column]]


def accuracy(records: Sequence[Record]) -> Table:
    """Test NDCG@10 of the main experiment: a row per model, two columns per data set.

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
            shown = rows.setdefault(name, {"model": name})
            shown |= {dataset: row["ndcg@10"], f"{dataset} unseen": row["unseen"]}
    columns = [Column("model")]
    for name in datasets:
        columns.append(Column(name, best="max"))
        columns.append(Column(f"{name} unseen", "history excluded", best="max"))
    return list(rows.values()), shown_columns(columns, list(rows.values()))


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
            Column(f"ratio {batch}", "exact / search", digits=2),
            Column(f"slower {batch}", "whole answer / fastest trunk + search", digits=1),
        ]
    columns.append(Column("recall@10", "Recall@10 of exact", digits=3))
    columns.append(Column("items_scored", "entries scored", digits=0))
    return list(rows.values()), shown_columns(columns, list(rows.values()))


_SIZES = [
    Column("catalogue"),
    Column("machine"),
    Column("users", digits=0),
    Column("trunk", "trunk, ms", digits=2),
    Column("exact", "exact, ms", digits=2),
    Column("leaves", "leaves, ms", digits=2),
    Column("of_search", "exact / leaves", digits=1),
    Column("trunk + leaves", "trunk + leaves, ms", digits=2),
    Column("of_both", "(trunk, then exact) / (trunk + leaves)", digits=1),
    Column("autoregressive", "fastest beam search, ms", digits=2),
    Column("of_codes", "beam search / (trunk + leaves)", digits=1),
    Column("trunk + leaves + S2", "trunk + leaves + S2, ms", digits=2),
    Column("of_codes_s2", "beam search / (trunk + leaves + S2)", digits=1),
]


def sizes(benchmarks: Sequence[Mapping[str, Any]]) -> Table:
    """What a search and parallel codes gain, by catalogue, medians.

    Args:
      benchmarks: of `load_speed`.

    Returns:
      Rows, the smallest catalogue first, one per number of users; and columns. Where the trunk
      takes longer than a search of everything, a faster search gains little. Machines are told
      apart where there are several.
    """
    rows = []
    differ = len({benchmark.get("machine") for benchmark in benchmarks}) > 1
    for benchmark in sorted(benchmarks, key=n_items):
        timed = benchmark["rows"]
        for batch in sorted({row["batch"] for row in timed}):
            ms = {row["decoder"]: row["p50_ms"] for row in timed if row["batch"] == batch}
            if not {"exact", "leaves", "trunk", "trunk + leaves"} <= ms.keys():
                continue
            own = {name: ms[name] for name in ("trunk", "exact", "leaves", "trunk + leaves")}
            coded = [took for name, took in ms.items() if name.startswith("ar_")]
            row = {"catalogue": catalogue(benchmark), "users": batch, **own}
            row["machine"] = benchmark["machine"] if differ else None
            row["of_search"] = ms["exact"] / ms["leaves"]
            row["of_both"] = (ms["trunk"] + ms["exact"]) / ms["trunk + leaves"]
            if coded:
                row["autoregressive"] = min(coded)
                row["of_codes"] = min(coded) / ms["trunk + leaves"]
            if (again := ms.get("trunk + leaves + S2")) is not None:
                row["trunk + leaves + S2"] = again
                if coded:
                    row["of_codes_s2"] = min(coded) / again
            rows.append(row)
    return rows, shown_columns(_SIZES, rows)


def catalogue(benchmark: Mapping[str, Any]) -> str:
    """How many items, and of what: "12,101 items of amazon_2014/Beauty"."""
    return f"{n_items(benchmark):,} items of {dataset_of(benchmark['data'])}"


def n_items(benchmark: Mapping[str, Any]) -> int:
    """Of the catalogue of one of `load_speed`."""
    items: int = benchmark["rows"][0]["n_items"]
    return items
