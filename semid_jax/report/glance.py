"""What the tables of record come to: accuracy by data set, times by decoder and by catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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


_BENCHMARK = [Column("catalogue"), Column("machine"), Column("users", digits=0)]
_SEARCHES = [
    *_BENCHMARK,
    Column("trunk", "trunk, ms", digits=2),
    Column("exact", "exact, ms", digits=2),
    Column("leaves", "leaves, ms", digits=2),
    Column("of_search", "exact / leaves", digits=1),
    Column("trunk + leaves", "trunk + leaves, ms", digits=2),
    Column("of_both", "(trunk, then exact) / (trunk + leaves)", digits=1),
]
_PARALLEL = [
    *_BENCHMARK,
    Column("trunk + leaves", "two steps, S1, ms", digits=2),
    Column("trunk + leaves + S2", "S2, ms", digits=2),
    Column("stream + leaves + S2", "S2 as a server, ms", digits=2),
    Column("codes", "codes one by one", digits=0),
    Column("autoregressive", "ms", digits=2),
    Column("of_s1", "/ S1", digits=1),
    Column("of_s2", "/ S2", digits=1),
    Column("ndcg", "NDCG@10 of the codes"),
    Column("ndcg_s1", "of S1"),
    Column("ndcg_s2", "of S2"),
]


def searches(benchmarks: Sequence[Mapping[str, Any]]) -> Table:
    """What a faster search gains, by catalogue, medians.

    Args:
      benchmarks: of `load_speed`.

    Returns:
      Rows, the smallest catalogue of a data set first, one per number of users; and columns. Where
      the trunk takes longer than a search of everything, a faster search gains little.
    """
    rows = []
    for shown, timed in _by_users(benchmarks):
        ms = {name: row["p50_ms"] for name, row in timed.items()}
        own = {name: ms[name] for name in ("trunk", "exact", "leaves", "trunk + leaves")}
        of_search = ms["exact"] / ms["leaves"]
        of_both = (ms["trunk"] + ms["exact"]) / ms["trunk + leaves"]
        rows.append({**shown, **own, "of_search": of_search, "of_both": of_both})
    return rows, shown_columns(_SEARCHES, rows)


def parallel(benchmarks: Sequence[Mapping[str, Any]]) -> Table:
    """What codes in parallel gain over codes one by one, by catalogue, medians.

    Args:
      benchmarks: of `load_speed`.

    Returns:
      Rows, the smallest catalogue of a data set first, one per number of users and of codes, the
      faster of the two tries; and columns.
    """
    rows = []
    for shown, timed in _by_users(benchmarks):
        whole = ("trunk + leaves", "trunk + leaves + S2", "stream + leaves + S2")
        ms = {name: timed[name]["p50_ms"] for name in whole if name in timed}
        ndcg = {
            "ndcg_s1": timed["leaves"].get("ndcg@10"),
            "ndcg_s2": timed.get("trunk + leaves + S2", {}).get("ndcg@10"),
        }
        for codes, beam in sorted(_fastest_beams(timed).items()):
            took = beam["p50_ms"]
            row = {**shown, **ms, **ndcg, "codes": codes, "autoregressive": took}
            row["of_s1"] = took / ms["trunk + leaves"]
            if "trunk + leaves + S2" in ms:
                row["of_s2"] = took / ms["trunk + leaves + S2"]
            rows.append({**row, "ndcg": beam.get("ndcg@10")})
    return rows, shown_columns(_PARALLEL, rows)


def _by_users(
    benchmarks: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, Mapping[str, Any]]]]:
    """What a row of a benchmark is of, and its decoders' rows by name, per number of users.

    Those without the rows that all are compared with are left out. Machines are told apart where
    there are several.
    """
    differ = len({benchmark.get("machine") for benchmark in benchmarks}) > 1
    for benchmark in sorted(benchmarks, key=by_catalogue):
        machine = {"machine": benchmark["machine"]} if differ else {}
        for users in sorted({row["batch"] for row in benchmark["rows"]}):
            timed = {row["decoder"]: row for row in benchmark["rows"] if row["batch"] == users}
            if {"exact", "leaves", "trunk", "trunk + leaves"} <= timed.keys():
                yield {"catalogue": catalogue(benchmark), "users": users, **machine}, timed


def _fastest_beams(timed: Mapping[str, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """The fastest row of a beam search by how many codes it generates."""
    fastest: dict[int, Mapping[str, Any]] = {}
    for name, row in timed.items():
        if found := re.match(r"ar_\w+, (\d+) codes", name):
            codes = int(found[1])
            fastest[codes] = min(fastest.get(codes, row), row, key=lambda row: row["p50_ms"])
    return fastest


def extent(benchmark: Mapping[str, Any]) -> tuple[bool, int, int]:
    """How much was timed: whether whole answers by S2 were, of how many items, in how many rows."""
    again = any(row["decoder"].endswith(" + S2") for row in benchmark["rows"])
    return again, n_items(benchmark), len(benchmark["rows"])


def by_catalogue(benchmark: Mapping[str, Any]) -> tuple[str, int]:
    """Sorts benchmarks: a data set's beside each other, the smallest catalogue first."""
    return dataset_of(benchmark["data"]), n_items(benchmark)


def catalogue(benchmark: Mapping[str, Any]) -> str:
    """How many items, and of what: "12,101 items of amazon_2014/Beauty"."""
    return f"{n_items(benchmark):,} items of {dataset_of(benchmark['data'])}"


def n_items(benchmark: Mapping[str, Any]) -> int:
    """Of the catalogue of one of `load_speed`."""
    items: int = benchmark["rows"][0]["n_items"]
    return items
