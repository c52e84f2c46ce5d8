"""Runs of record, and README's tables made from them."""

import dataclasses
import json

import numpy as np
import pytest

from semid_jax import artifacts
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.store import KIND, read_evaluation, write_evaluation
from semid_jax.eval.users import Lists, Users
from semid_jax.report import experiments, glance, keep, readme
from semid_jax.report.checks import TABLES, check_table
from semid_jax.report.metrics import write_metrics
from semid_jax.report.ranks import read_ranks
from semid_jax.report.records import (
    Record,
    load_record,
    load_records,
    load_speed,
    record_of,
    write_record,
)
from semid_jax.report.tables import markdown_table
from semid_jax.types import InputError


def record(results, model="hdnag", seed=0, ndcg=0.1, dataset="amazon_2014/Beauty"):
    made = Record(
        experiment="baselines",
        model=model,
        dataset=dataset,
        seed=seed,
        command="python -m semid_jax.launch",
        revision="abc",
        versions={"jax": "0"},
        machine="2 cores",
        seconds=120.0,
        parameters=1_000,
        metrics={"test.ndcg@10": ndcg, "test.recall@10": 2 * ndcg},
    )
    return write_record(results, made)


def test_records_have_the_names_and_fields_of_the_design(tmp_path):
    path = record(tmp_path, "hdnag/no_gate", 3)
    assert path == tmp_path / "baselines" / "amazon_2014_Beauty-hdnag_no_gate-3.json"
    found = json.loads(path.read_text())
    assert list(found) == [
        "experiment", "model", "dataset", "seed", "command", "revision", "versions", "machine",
        "seconds", "parameters", "metrics",
    ]  # fmt: skip
    assert found["metrics"] == {"test": {"ndcg@10": 0.1, "recall@10": 0.2}}
    assert found["model"] == "hdnag/no_gate"
    assert found["dataset"] == "amazon_2014/Beauty"
    assert "jax" in found["versions"]
    assert [r.seed for r in load_records(tmp_path)] == [3]
    with pytest.raises(InputError, match="model 'hdnga': a record's model is one of hdnag, sasrec"):
        record(tmp_path, "hdnga")


def test_a_finished_run_is_kept_and_an_unfinished_one_refused(tmp_path):
    workdir = tmp_path / "run"
    (workdir / "results").mkdir(parents=True)
    config = {"data": {"name": "amazon_2014", "category": "Beauty"}}
    made = {"command": "c", "revision": "r", "versions": {}, "machine": "m", "config": config}
    (workdir / "config.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match="no readable metrics"):
        record_of(workdir, "road")
    flat = {"test.ndcg@10": 0.2, "run.model": "gru4rec", "run.seed": 3, "run.seconds": 9.5}
    write_metrics(workdir / "results" / "metrics.json", {**flat, "run.parameters": 7})
    side = Users(np.array([1, 0]), np.ones((2, 2), np.int32), np.array([5, 6], np.int32))
    items = np.array([[4, 5], [4, 5]], np.int32)
    lists = Lists(items, np.zeros((2, 2), np.float32), np.full(2, 9, np.int32))
    write_evaluation(workdir / "evaluation", Evaluation({}, side, lists), {}, {}, 1.0)
    arguments = [str(workdir), "--experiment=road", f"--results={tmp_path / 'kept'}"]
    assert keep.main(arguments) == 0
    (kept,) = load_records(tmp_path / "kept")
    assert (kept.dataset, kept.seed, kept.seconds, kept.parameters) == (
        "amazon_2014/Beauty", 3, 9.5, 7,
    )  # fmt: skip
    assert kept.metrics["test"] == {"ndcg@10": 0.2}
    assert kept.model == "gru4rec"
    ranks = read_ranks(tmp_path / "kept" / "road" / kept.file_name).ranks
    assert ranks.tolist() == [0, 2]  # users ascending
    assert record_of(workdir, "road", "wide").model == "gru4rec/wide"
    (workdir / "config.json").write_text(
        json.dumps({**made, "config": {**config, "model": {"features": True}}})
    )
    made = record_of(workdir, "road")
    assert made.model == "gru4rec_features"
    assert load_record(write_record(tmp_path / "results", made)).model == made.model
    longest = dataclasses.replace(lists, items=np.ones((2, 300), np.int32))
    write_evaluation(workdir / "evaluation", Evaluation({}, side, longest), {}, {}, 1.0)
    other = [str(workdir), "--experiment=other", f"--results={tmp_path / 'kept'}"]
    assert keep.main(other) == 2
    assert not (tmp_path / "kept" / "other").exists()
    write_metrics(workdir / "results" / "metrics.json", {"test.ndcg@10": 0.2})
    assert keep.main(arguments) == 2


def test_an_evaluation_of_an_older_revision_is_refused_by_name(tmp_path):
    side = Users(np.array([0]), np.ones((1, 2), np.int32), np.array([5], np.int32))
    lists = Lists(np.ones((1, 2), np.int32), np.zeros((1, 2), np.float32), np.ones(1, np.int32))
    place = tmp_path / "evaluation"
    write_evaluation(place, Evaluation({}, side, lists), {}, {}, 1.0)
    arrays, manifest = artifacts.read(place, KIND)
    del arrays["side/targets"]
    artifacts.write(place, KIND, arrays, {}, {}, manifest["extra"])
    with pytest.raises(InputError, match="of an older revision, lacks targets"):
        read_evaluation(place)


def test_records_that_are_none_are_named(tmp_path):
    path = record(tmp_path)
    found = json.loads(path.read_text())
    del found["seconds"]
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"hdnag-0\.json: the record lacks seconds"):
        load_records(tmp_path)
    path.write_text(json.dumps({**found, "seconds": 1, "extra": 2}))
    with pytest.raises(InputError, match="the record has unknown extra"):
        load_records(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        load_records(tmp_path)


def test_readme_tables_average_seeds_and_know_when_they_are_stale(tmp_path, capsys):
    results, page = tmp_path / "results", tmp_path / "README.md"
    record(results, "popularity", 0, 0.01)
    for seed, ndcg in enumerate((0.10, 0.12)):
        record(results, "hdnag", seed, ndcg)
    (results / "decode_speed").mkdir()
    (results / "decode_speed" / "laptop.json").write_text(
        json.dumps(
            {
                "machine": "laptop",
                "revision": "abc",
                "data": {"name": "amazon_2014", "category": "Beauty"},
                "rows": [{"decoder": "exact", "n_items": 1000, "batch": 1, "p50_ms": 1.234}],
            }
        )
    )
    assert load_speed(results)[0]["machine"] == "laptop"
    page.write_text(f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\n\nThe end.\n")
    arguments = ["--readme", str(page), "--results", str(results)]

    assert readme.main([*arguments, "--check"]) == 1
    assert "run python -m semid_jax.report.readme" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert readme.main(arguments) == 0
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\n\nThe end.\n")
    assert "old" not in text
    assert "| hdnag | **0.1100** | **0.2200** | 0.0141 | 2 | 1,000 | 2.0 |" in text
    assert text.index("| hdnag |") < text.index("| popularity |")
    assert "| exact | 1,000 | 1 | 1.23 |" in text
    assert readme.main([*arguments, "--check"]) == 0
    assert readme.main(arguments) == 0
    assert page.read_text() == text


def test_a_glance_has_columns_per_data_set_and_a_row_per_decoder(tmp_path):
    for dataset, ndcg in (("amazon_2014/Beauty", 0.1), ("movielens_1m", 0.2)):
        for model, share in (("hdnag", 1.0), ("sasrec", 0.5)):
            made = json.loads(record(tmp_path, model, 0, share * ndcg, dataset).read_text())
            if dataset == "movielens_1m":
                made["metrics"]["test_without_history"] = {"ndcg@10": 0.3 * share}
            write_record(tmp_path, Record(**{**made, "experiment": "main"}))
    assert markdown_table(*glance.accuracy(load_records(tmp_path))).splitlines() == [
        "| model | amazon_2014/Beauty | movielens_1m | history excluded |",
        "|---|---:|---:|---:|",
        "| hdnag | **0.1000** | **0.2000** | **0.3000** |",
        "| sasrec | 0.0500 | 0.1000 | 0.1500 |",
    ]
    timed = [
        {"decoder": "exact", "batch": 1, "p50_ms": 8.0, "ratio": 1.0, "recall@10": 1.0},
        {"decoder": "leaves", "batch": 1, "p50_ms": 0.5, "ratio": 16.0, "recall@10": 0.99},
        {"decoder": "exact", "batch": 256, "p50_ms": 900.0, "ratio": 1.0, "recall@10": 1.0},
    ]
    assert markdown_table(*glance.speed({"rows": timed})).splitlines()[2:] == [
        "| exact | 8.00 | 1.00 | 900.00 | 1.00 | 1.000 |",
        "| leaves | 0.50 | 16.00 | - | - | 0.990 |",
    ]


def timed_benchmark(items, exact, leaves, trunk, both, **others):
    ms = {"exact": exact, "leaves": leaves, "trunk": trunk, "trunk + leaves": both, **others}
    rows = [{"decoder": name, "batch": 256, "p50_ms": took} for name, took in ms.items()]
    return {"data": {"name": "shop"}, "rows": [{**row, "n_items": items} for row in rows]}


def test_a_faster_search_is_told_beside_the_trunk_that_comes_before_it():
    few = timed_benchmark(12, 10.0, 2.0, 20.0, 20.0)
    many = timed_benchmark(1200, 980.0, 20.0, 20.0, 40.0)
    alone = {"data": {"name": "shop"}, "rows": few["rows"][:1]}
    assert markdown_table(*glance.searches([many, few, alone])).splitlines()[2:] == [
        "| 12 items of shop | 256 | 20.00 | 10.00 | 2.00 | 5.0 | 20.00 | 1.5 |",
        "| 1,200 items of shop | 256 | 20.00 | 980.00 | 20.00 | 49.0 | 40.00 | 25.0 |",
    ]
    apart = [{**few, "machine": "a laptop"}, {**many, "machine": "a server"}]
    lines = markdown_table(*glance.searches(apart)).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["a laptop", "a server"]


def test_catalogues_of_a_data_set_stand_beside_each_other():
    few, many = (timed_benchmark(n, 10.0, 2.0, 20.0, 20.0) for n in (12, 1200))
    other = {**timed_benchmark(300, 10.0, 2.0, 20.0, 20.0), "data": {"name": "bazaar"}}
    rows, _ = glance.searches([few, other, many])
    shown = ["300 items of bazaar", "12 items of shop", "1,200 items of shop"]
    assert [row["catalogue"] for row in rows] == shown


def test_the_benchmark_shown_first_is_the_largest_that_ranks_again_and_then_the_longest():
    s1 = timed_benchmark(9000, 10.0, 2.0, 20.0, 20.0)
    small = timed_benchmark(12, 10.0, 2.0, 20.0, 20.0, **{"trunk + leaves + S2": 30.0})
    short = timed_benchmark(1200, 10.0, 2.0, 20.0, 20.0, **{"trunk + leaves + S2": 30.0})
    both = {"trunk + leaves + S2": 30.0, "ar_trie, 3 codes, beam 10": 50.0}
    whole = timed_benchmark(1200, 10.0, 2.0, 20.0, 20.0, **both)
    assert max([s1, small, short, whole], key=glance.extent) is whole
    assert max([s1, small], key=glance.extent) is small


def test_two_steps_are_told_beside_the_faster_try_of_each_length():
    beams = {
        "ar_static, 17 codes, beam 10": 3000.0,
        "ar_static, 4 codes, beam 10": 660.0,
        "ar_trie, 4 codes, beam 10": 600.0,
    }
    few = timed_benchmark(12, 10.0, 2.0, 20.0, 20.0, **{"ar_trie, 3 codes, beam 10": 50.0})
    again = {"trunk + leaves + S2": 60.0, "stream + leaves + S2": 75.0}
    many = timed_benchmark(1200, 980.0, 20.0, 20.0, 40.0, **beams, **again)
    for row in many["rows"]:
        worth = {"leaves": 0.03, "trunk + leaves + S2": 0.05, "ar_trie, 4 codes, beam 10": 0.02}
        row["ndcg@10"] = worth.get(row["decoder"])
    assert markdown_table(*glance.parallel([many, few])).splitlines()[2:] == [
        "| 12 items of shop | 256 | 20.00 | - | - | 3 | 50.00 | 2.5 | - | - | - | - |",
        "| 1,200 items of shop | 256 | 40.00 | 60.00 | 75.00 | 4 | 600.00 | 15.0 | 10.0 | 0.0200 "
        "| 0.0300 | 0.0500 |",
        "| 1,200 items of shop | 256 | 40.00 | 60.00 | 75.00 | 17 | 3,000.00 | 75.0 | 50.0 | - "
        "| 0.0300 | 0.0500 |",
    ]


def test_of_a_baseline_without_training_the_best_features_are_shown(tmp_path):
    for model, seed, text in (("rpg", 0, 0.04), ("sasrec", 0, 0.03), ("sasrec", 1, 0.03)):
        made = json.loads(record(tmp_path, model, seed).read_text())
        values = {"text_knn": text, "item_knn": 0.02}
        made["metrics"]["baselines"] = {
            name: dict.fromkeys(experiments.METRICS, value) for name, value in values.items()
        }
        made["metrics"]["test_without_history"] = {"ndcg@10": 0.11}
        made["metrics"]["baselines_without_history"] = {"item_knn": {"ndcg@10": 0.023}}
        write_record(tmp_path, Record(**made))
    table = readme.results_markdown(tmp_path)
    assert "| NDCG@10, history excluded |" in table
    assert "| sasrec | **0.1000** | **0.2000** | - | - | **0.1100** |" in table
    assert "| item_knn | 0.0200 | 0.0200 | 0.0200 | 0.0200 | 0.0230 |" in table
    rows = [line.split(" | ")[:2] for line in table.splitlines()]
    assert ["| item_knn", "0.0200"] in rows
    assert ["| text_knn, best of 2 measured", "0.0400"] in rows


def test_readme_without_markers_is_refused_in_one_line(tmp_path, capsys):
    page = tmp_path / "README.md"
    arguments = ["--readme", str(page), "--results", str(tmp_path)]
    assert readme.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
    page.write_text(f"{readme.BEGIN}\n")
    assert readme.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {page}: needs the lines {readme.BEGIN}")
    page.write_text(f"{readme.END}\n{readme.BEGIN}\n")
    assert readme.main(arguments) == 2
    assert "stands before" in capsys.readouterr().err
    page.write_text(f"{readme.BEGIN}\n{readme.END}\n")
    assert readme.main(arguments) == 0
    assert "No runs of record yet." in page.read_text()


def test_what_pmat_knows_is_a_table_of_checks_by_model():
    def made(model, seed, **metrics):
        named = {name.replace("__", "."): value for name, value in metrics.items()}
        return Record("pmat", model, "synthetic", seed, "c", "r", {}, "m", 1.0, 1, named)

    _, checks = TABLES["pmat"]
    rows, columns = check_table(
        [
            made("hdnag", 1, pmat__churn=0.2, diversity__intra_list_diversity_text=0.5),
            made("hdnag", 0, pmat__churn=0.1),
            made("sasrec", 0, test__accuracy=1.0, diversity__intra_list_diversity_text=0.25),
        ],
        checks,
    )
    assert [column.key for column in columns] == ["check", "hdnag", "sasrec"]
    assert rows == [
        {"check": "churn of an update", "hdnag": "0.1500 ± 0.0707"},
        {"check": "diversity of lists, text", "hdnag": "0.5000", "sasrec": "0.2500"},
    ]
    assert check_table([made("sasrec", 0, test__accuracy=1.0)], checks)[0] == []
