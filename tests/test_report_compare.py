"""Paired differences between finished runs, and their table in README."""

import json

import numpy as np
import pytest

from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.store import write_evaluation
from semid_jax.eval.users import Lists, Users
from semid_jax.report import compare
from semid_jax.report.metrics import write_metrics
from semid_jax.report.readme import results_markdown
from semid_jax.report.records import load_records


def finished(workdir, model, seed, ranks, users=(0, 1, 2, 3), targets=(9, 8, 7, 6)):
    """A run whose target stands at a rank, 0 = not in the list, of each user."""
    made = {
        "command": f"run {model} {seed}", "revision": "r", "versions": {}, "machine": "m",
        "config": {"data": {"name": "amazon_2014", "category": "Beauty"}},
    }  # fmt: skip
    (workdir / "results").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(made))
    flat = {
        "run.model": model, "run.seed": seed, "run.seconds": 1.0, "run.parameters": 1,
        "test.ndcg@10": 0.1,
    }  # fmt: skip
    write_metrics(workdir / "results" / "metrics.json", flat)
    items = np.tile(np.arange(101, 111, dtype=np.int32), (len(ranks), 1))
    for row, rank in enumerate(ranks):
        if rank:
            items[row, rank - 1] = targets[row]
    history = np.ones((len(ranks), 2), np.int32)
    side = Users(np.array(users), history, np.array(targets, np.int32))
    lists = Lists(items, np.zeros(items.shape, np.float32), np.full(len(ranks), 9, np.int32))
    write_evaluation(workdir / "evaluation", Evaluation({}, side, lists), {}, {}, 1.0)
    return workdir


def test_difference_is_over_users_whatever_their_order_seeds_averaged(tmp_path, capsys):
    ours = [
        finished(tmp_path / "a0", "hdnag", 0, [1, 3, 0, 1]),
        finished(tmp_path / "a1", "hdnag", 1, [1, 0, 3, 1]),
    ]
    theirs = finished(tmp_path / "b", "sasrec", 0, [3, 3, 0, 0], (3, 2, 1, 0), (6, 7, 8, 9))
    results = tmp_path / "results"
    arguments = [
        "--ours", *map(str, ours), "--theirs", str(theirs), "--experiment=main",
        f"--results={results}",
    ]  # fmt: skip
    assert compare.main(arguments) == 0
    found = json.loads(
        (results / "paired" / "main" / "amazon_2014_Beauty-hdnag-sasrec.json").read_text()
    )
    assert found["ours"]["seeds"] == [0, 1]
    # By hand: ours 1, .25, .25, 1; theirs, users 0 to 3, 0, 0, .5, .5.
    assert found["ours"]["mean"] == pytest.approx(0.625)
    assert found["theirs"]["mean"] == pytest.approx(0.25)
    assert found["difference"] == pytest.approx(0.375)
    assert found["low"] < 0.375 < found["high"]
    assert "hdnag 0.6250, sasrec 0.2500, difference +0.3750" in capsys.readouterr().out
    assert load_records(results) == []


def test_readme_shows_them_under_their_experiment(tmp_path):
    results = tmp_path / "results"
    a = finished(tmp_path / "a", "hdnag", 0, [1, 3, 0, 1])
    b = finished(tmp_path / "b", "sasrec", 0, [3, 3, 0, 0])
    assert compare.main(
        [f"--ours={a}", f"--theirs={b}", "--experiment=main", f"--results={results}"]
    ) == 0  # fmt: skip
    assert "Paired differences" in results_markdown(results)
    assert "| amazon_2014/Beauty | hdnag - sasrec | ndcg@10 | +0.3750 |" in results_markdown(
        results
    )


def test_other_users_and_unknown_metrics_are_refused_in_one_line(tmp_path, capsys):
    a = finished(tmp_path / "a", "hdnag", 0, [1, 3, 0, 1])
    b = finished(tmp_path / "b", "sasrec", 0, [1, 3], (0, 1), (9, 8))
    arguments = [f"--ours={a}", f"--theirs={b}", "--experiment=main", f"--results={tmp_path}"]
    assert compare.main(arguments) == 2
    assert "other test users" in capsys.readouterr().err
    arguments[1] = f"--theirs={a}"
    assert compare.main([*arguments, "--metric=auc"]) == 2
    assert "--metric: 'auc' is none of recall@1" in capsys.readouterr().err
    assert compare.main([*arguments[:1], f"--theirs={tmp_path / 'none'}", arguments[2]]) == 2
