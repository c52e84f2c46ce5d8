"""Paired differences between runs of record, and their table in README."""

import json

import numpy as np
import pytest

from semid_jax import artifacts
from semid_jax.data import builders
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.store import write_evaluation
from semid_jax.eval.users import Lists, Users
from semid_jax.report import compare, keep
from semid_jax.report.metrics import write_metrics
from semid_jax.report.ranks import ranks_path
from semid_jax.report.readme import results_markdown
from semid_jax.report.records import load_records


def kept(results, model, seed, ranks, users=(0, 1, 2, 3), targets=(9, 8, 7, 6)):
    """The record of a run whose target stands at a rank, 0 = not in the list, of each user."""
    workdir = results / "runs" / f"{model}-{seed}"
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
    results = results / "results"
    assert keep.main([str(workdir), "--experiment=main", f"--results={results}"]) == 0
    return results / "main" / f"amazon_2014_Beauty-{model}-{seed}.json"


def test_difference_is_over_users_whatever_their_order_seeds_averaged(tmp_path, capsys):
    ours = [
        kept(tmp_path, "hdnag", 0, [1, 3, 0, 1]),
        kept(tmp_path, "hdnag", 1, [1, 0, 3, 1]),
    ]
    theirs = kept(tmp_path, "sasrec", 0, [3, 3, 0, 0], (3, 2, 1, 0), (6, 7, 8, 9))
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
    assert [record.model for record in load_records(results)] == ["hdnag", "hdnag", "sasrec"]


def test_users_who_drift_are_compared_by_themselves(tmp_path, capsys):
    world = generate(SyntheticConfig(n_users=4, n_items=40, topics=3))
    world.truth["drift_kind"] = np.array([0, 2, 1, 0])
    for name in ("w", "steady"):
        (tmp_path / name / "data").mkdir(parents=True)
    builders.write(world, tmp_path / "w" / "data", "synthetic")
    ours = kept(tmp_path, "hdnag", 0, [1, 3, 0, 1])
    theirs = kept(tmp_path, "sasrec", 0, [1, 0, 0, 0])
    results = tmp_path / "results"
    arguments = [f"--ours={ours}", f"--theirs={theirs}", "--experiment=main"]
    arguments += [f"--results={results}", f"--drifted={tmp_path / 'w'}"]
    assert compare.main(arguments) == 0
    file = results / "paired" / "main" / "amazon_2014_Beauty-hdnag-sasrec-drifted.json"
    found = json.loads(file.read_text())
    assert found["users"] == 2
    assert found["difference"] == pytest.approx(0.25)
    assert found["dataset"] == "amazon_2014/Beauty, users who drift"
    few = generate(SyntheticConfig(n_users=3, n_items=40, topics=3))
    builders.write(few, tmp_path / "steady" / "data", "synthetic")
    assert compare.main([*arguments[:-1], f"--drifted={tmp_path / 'steady'}"]) == 2
    assert "4 users, not 3" in capsys.readouterr().err


def test_readme_shows_them_under_their_experiment(tmp_path):
    results = tmp_path / "results"
    a = kept(tmp_path, "hdnag", 0, [1, 3, 0, 1])
    b = kept(tmp_path, "sasrec", 0, [3, 3, 0, 0])
    assert compare.main(
        [f"--ours={a}", f"--theirs={b}", "--experiment=main", f"--results={results}"]
    ) == 0  # fmt: skip
    assert "Paired differences" in results_markdown(results)
    assert "| amazon_2014/Beauty | hdnag - sasrec | ndcg@10 | +0.3750 |" in results_markdown(
        results
    )


def with_features(workdir):
    """A workdir whose features put the items 101 … 109 in one place and 110 apart from them."""
    x = np.zeros((111, 2), np.float32)
    x[101:], x[110] = [1.0, 0.0], [0.0, 1.0]
    arrays = {"x/text": x, "present/text": np.arange(111) > 100}
    artifacts.write(workdir / "features", "features", arrays, {}, {}, {})
    with_data(workdir)


def with_data(workdir, users=3):
    artifacts.write(workdir / "data", "data", {"users": np.arange(users)}, {}, {})


def test_lists_are_compared_by_their_diversity_in_the_same_features(tmp_path, capsys):
    with_features(tmp_path / "other")
    paths = []
    for model, ranks in (("hdnag", [0, 1, 0, 0]), ("sasrec", [10, 0, 0, 0])):
        path = kept(tmp_path, model, 0, ranks)
        with_data(tmp_path / "runs" / f"{model}-0")
        again = [str(tmp_path / "runs" / f"{model}-0"), "--experiment=main"]
        measured = [f"--diversity={tmp_path / 'other'}", f"--results={tmp_path / 'results'}"]
        assert keep.main([*again, *measured]) == 0
        paths.append(path)
    with_data(tmp_path / "other", users=4)
    assert keep.main([*again, *measured]) == 2
    assert "--diversity=" in capsys.readouterr().err
    metric = "intra_list_diversity_text@10"
    found = compare.compare([paths[0]], [paths[1]], metric)
    # Nine items in one place and a tenth apart: 9 of 45 pairs; the target's item has no features.
    ours, theirs = (3 * 9 / 45 + 8 / 36) / 4, (0.0 + 3 * 9 / 45) / 4
    assert found["ours"]["mean"] == pytest.approx(ours, abs=1e-3)
    assert found["theirs"]["mean"] == pytest.approx(theirs, abs=1e-3)
    assert found["difference"] == pytest.approx(ours - theirs, abs=1e-3)
    arguments = [f"--ours={paths[0]}", f"--theirs={paths[1]}", f"--metric={metric}"]
    results = tmp_path / "results"
    assert compare.main([*arguments, "--experiment=main", f"--results={results}"]) == 0
    (made,) = (results / "paired" / "main").glob("*")
    assert made.name == f"amazon_2014_Beauty-hdnag-sasrec-{metric}.json"


def test_what_cannot_be_paired_is_refused_in_one_line(tmp_path, capsys):
    a = kept(tmp_path, "hdnag", 0, [1, 3, 0, 1])
    b = kept(tmp_path, "sasrec", 0, [1, 3], (0, 1), (9, 8))

    def refused(ours, theirs, *more):
        arguments = ["--ours", *map(str, ours), f"--theirs={theirs}", "--experiment=main", *more]
        assert compare.main([*arguments, f"--results={tmp_path}"]) == 2
        return capsys.readouterr().err

    assert "sasrec-0.json: other test users than" in refused([a], b)
    assert "--metric: 'auc' is none of recall@1" in refused([a], a, "--metric=auc")
    assert f"{b}: of sasrec, {a} is of hdnag" in refused([a, b], a)
    assert "none.json: not readable" in refused([a], a.parent / "none.json")
    ranks_path(a).write_text('{"split": "s", "ranks": "?"}')
    assert "torn; keep the run again" in refused([a], a)
    ranks_path(a).unlink()
    assert "no such file; keep the run again" in refused([a], a)
