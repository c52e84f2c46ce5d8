"""The benchmark of updates: run as its users would, on a tiny world."""

import json

import numpy as np
import pytest

from semid_jax import launch
from semid_jax.benchmarks.timing import ROUNDS, time_calls, time_in_turn
from semid_jax.report.readme import results_markdown
from semid_jax.report.records import load_records


def test_every_call_but_the_first_is_timed():
    calls = []
    timing = time_calls(lambda: calls.append(np.zeros(1)), seconds=0.0, least=3)
    assert len(calls) == 4
    assert timing.calls == 3
    assert 0 <= timing.p50_ms <= timing.p95_ms
    assert timing.first_s >= 0


def test_functions_to_be_compared_are_timed_in_turn():
    calls = []
    timings = time_in_turn([lambda: calls.append("a"), lambda: calls.append("b")], seconds=0.0)
    # The first of each compiles, the first of a round finds the caches as others left them.
    assert calls == ["a", "b"] + ["a", "a", "b", "b"] * ROUNDS
    assert [timing.calls for timing in timings] == [ROUNDS, ROUNDS]


@pytest.mark.slow
def test_a_tiny_benchmark_prints_and_keeps_its_table(tmp_path, capsys):
    arguments = ["launch", "--config=configs/update_speed.py:tiny", f"--workdir={tmp_path / 'run'}"]
    assert launch.main(arguments) == 0
    made = json.loads((tmp_path / "run" / "results" / "update_speed.json").read_text())
    works = ["update, no drift", "update, all drift", "read sides encoded"]
    works.append("catalogue encoded, 1 of the users")
    assert [row["work"] for row in made["rows"]] == works * 2
    assert [row["batch"] for row in made["rows"]] == [1] * 4 + [4] * 4
    assert all(row["n_items"] == 200 and row["calls"] >= 2 for row in made["rows"])
    assert all(row["ratio"] == 1 for row in made["rows"] if row["work"] == "update, all drift")
    assert "catalogue encoded" in capsys.readouterr().out
    kept = tmp_path / "results" / "update_speed"
    kept.mkdir(parents=True)
    (kept / "laptop.json").write_text(json.dumps(made))
    assert load_records(kept.parent) == []
    shown = results_markdown(kept.parent)
    assert "| update, all drift | 200 | 4 |" in shown
    assert made["machine"] in shown


@pytest.mark.slow  # a tokenizer is trained first
def test_histories_that_no_drift_can_be_judged_from_are_refused(tmp_path, capsys):
    arguments = ["launch", "--config=configs/update_speed.py:tiny", f"--workdir={tmp_path / 'run'}"]
    assert launch.main([*arguments, "--config.tokenizer.window=60"]) == launch.BAD_INPUT
    assert "smaller tokenizer.window" in capsys.readouterr().err
