"""The benchmark of decoders: run as its users would, on a tiny world."""

import json

import numpy as np
import pytest

from semid_jax import launch
from semid_jax.benchmarks.decode_rows import finish
from semid_jax.benchmarks.machine import Rates, Work, trunk_work
from semid_jax.benchmarks.memory import STATUS, measure_peak
from semid_jax.benchmarks.programs import times
from semid_jax.benchmarks.timing import Timing
from semid_jax.report.readme import results_markdown

TINY = ["launch", "--config=configs/decode_speed.py:tiny"]


def rows_of(workdir):
    return json.loads((workdir / "results" / "decode_speed.json").read_text())


def test_a_floor_is_what_takes_longest():
    rates = Rates(bytes=1e9, lookups=1e8, operations=1e10)
    assert rates.floor_ms(Work(bytes=1e6, lookups=3e5, operations=1e7)) == pytest.approx(3.0)
    assert rates.floor_ms(Work(bytes=1e6) + Work(bytes=3e6)) == pytest.approx(4.0)
    assert trunk_work(10, 4, 2).operations == 2 * 10 * (4 * 2 * 16 + 2 * 2 * 64)
    taken = Timing(p50_ms=3.0, p95_ms=4.0, least_ms=2.0, first_s=1.0, calls=5)
    assert times(taken, 1.5) == {
        "p50_ms": 3.0, "p95_ms": 4.0, "calls": 5, "floor_ms": 1.5, "over_floor": 2.0
    }  # fmt: skip
    assert "over_floor" not in times(taken, rates.floor_ms(trunk_work(10, 4, 0)))


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell a process's peak")
def test_a_peak_is_seen_though_it_is_given_back():
    _, before = measure_peak(lambda: None)
    seconds, held = measure_peak(lambda: np.ones(2**25))
    assert before < 64
    assert 250 < held < 350
    assert seconds > 0


def test_ratios_are_those_of_the_same_batch():
    times = [("exact", 1, 4.0), ("inverted", 1, 1.0), ("exact", 8, 9.0), ("inverted", 8, 3.0)]
    times += [("trunk", 1, 2.0), ("trunk + inverted", 1, 2.5), ("trunk + inverted", 8, 5.0)]
    times += [("trunk + leaves", 8, 4.0), ("stream + leaves", 8, 8.0)]
    times += [("ar_static, 4 codes, beam 10", 8, 50.0)]
    rows = [{"decoder": name, "batch": batch, "p50_ms": ms} for name, batch, ms in times]
    finish(rows, 77)
    assert [row.get("ratio") for row in rows] == [1, 4, 1, 3, *[None] * 6]
    assert [row.get("slower") for row in rows] == [*[None] * 5, 1, 1.25, 1, 2, 12.5]
    assert all(row["n_items"] == 77 for row in rows)


@pytest.mark.slow
def test_a_tiny_benchmark_prints_and_keeps_its_table(tmp_path, capsys):
    few = ["--config.benchmark.lengths=()", "--config.benchmark.batches=4,"]
    few += ["--config.benchmark.methods=exact_matmul,pruned,leaves", "--config.decode.probes=4"]
    assert launch.main([*TINY, *few, f"--workdir={tmp_path / 'run'}"]) == 0
    made = rows_of(tmp_path / "run")
    names = ["exact", "exact_matmul", "pruned", "leaves", "inverted"]
    names += ["call alone", "trunk", "trunk + leaves", "trunk + inverted"]
    names += ["trunk + exact + S2", "trunk + leaves + S2", "trunk + inverted + S2"]
    names += ["stream + leaves + S2", "stream + inverted + S2"]
    assert [row["decoder"] for row in made["rows"]] == names
    assert all(row["n_items"] == 300 and row["batch"] == 4 for row in made["rows"])
    assert all(row["p50_ms"] > 0 and row["compile_s"] > 0 for row in made["rows"])
    by_name = {row["decoder"]: row for row in made["rows"]}
    for name in ("exact", "exact_matmul", "pruned"):
        assert by_name[name]["recall@10"] == 1.0
        assert by_name[name]["search_loss"] == 0.0
    for name in ("inverted", "leaves"):
        floor = by_name["trunk"]["floor_ms"] + by_name[name]["floor_ms"]
        assert by_name[f"trunk + {name}"]["floor_ms"] == pytest.approx(floor)
        again = by_name[f"trunk + {name} + S2"]
        assert again["floor_ms"] > 0
        assert again["recall@10"] > {"leaves": 0.9, "inverted": 0.6}[name]  # of four cells
        assert again["ndcg@10"] > 0
    assert by_name["trunk + exact + S2"]["recall@10"] == 1.0
    assert by_name["inverted"]["items_scored"] < 300
    scored = by_name["trunk + inverted + S2"]["items_scored"]
    assert scored == pytest.approx(by_name["inverted"]["items_scored"])
    assert by_name["inverted"]["build_s"] > 0
    phases = ["trunk", "coarse", "gather", "fine", "top_k", "s2", "one program"]
    assert [row["phase"] for row in made["phases"]] == phases
    assert 0 < made["head"]["coarse_entropy"] < np.log(300**0.5) + 0.1
    for name in ("inverted", "leaves"):
        line = [point for point in made["curve"] if point["decoder"] == name]
        recall = [point["recall@10"] for point in line]
        assert recall == sorted(recall)
        assert line[-1]["size"] > line[0]["size"]
    assert (tmp_path / "run" / "results" / "decode_speed.png").stat().st_size > 1000
    assert "faster than exact" in capsys.readouterr().out
    kept = tmp_path / "results" / "decode_speed"
    kept.mkdir(parents=True)
    (kept / "laptop.json").write_text(json.dumps(made))
    assert "| trunk + inverted | 300 | 4 |" in results_markdown(kept.parent)


@pytest.mark.slow
def test_all_decoders_are_timed_beside_autoregressive_ones(tmp_path):
    s1 = "--config.model.dense=none"
    assert launch.main([*TINY, s1, f"--workdir={tmp_path / 'run'}"]) == 0
    rows = rows_of(tmp_path / "run")["rows"]
    names = {row["decoder"] for row in rows}
    assert {"ar_static, 4 codes, beam 10", "ar_trie, 4 codes, beam 10"} <= names
    assert {"recjpqprune", "rpg_graph", "scann"} <= names
    assert {row["batch"] for row in rows} == {1, 4}
    assert all(row["slower"] > 0 for row in rows if row["decoder"].startswith("ar_"))


def test_a_length_without_epochs_is_refused(tmp_path, capsys):
    wrong = "--config.benchmark.lengths=4,0"
    assert launch.main([*TINY, wrong, f"--workdir={tmp_path / 'run'}"]) == launch.BAD_INPUT
    assert "benchmark.epochs: name one number for each" in capsys.readouterr().err


def test_an_unknown_decoder_is_refused(tmp_path, capsys):
    wrong = "--config.benchmark.methods=exakt,"
    assert launch.main([*TINY, wrong, f"--workdir={tmp_path / 'run'}"]) == launch.BAD_INPUT
    assert "'exakt' is unknown" in capsys.readouterr().err
