"""The whole road through the launcher, as a user runs it: shipped config, subprocess, resume."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

from semid_jax import artifacts, serving
from semid_jax import launch as launcher
from semid_jax.data import builders
from semid_jax.data.sequences import split_end
from semid_jax.eval.ranking import without_seen
from semid_jax.eval.store import read_evaluation
from semid_jax.launch import resolve
from semid_jax.stages import CHECKS, settle
from semid_jax.train import streaming
from semid_jax.types import InputError

# With a dense term: S1 is evaluated on the way to S2, which is calibrated.
TINY = ["--config=configs/hdnag.py:tiny", "--config.synthetic.n_users=128"]
TINY += ["--config.model.dense=free", "--config.decode.methods=inverted,leaves,scann,exact"]


def command(workdir, *more):
    return [sys.executable, "-m", "semid_jax.launch", *TINY, f"--workdir={workdir}", *more]


def environment():
    return {**os.environ, "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}


def launch(workdir, *more):
    return subprocess.run(
        command(workdir, *more),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )


def metrics_of(workdir):
    metrics = json.loads((workdir / "results" / "metrics.json").read_text())
    for group in ("run", "latency"):
        metrics.pop(group)
    for row in [*metrics["retrieval"].values(), *metrics["retrieval_s2"].values()]:
        row.pop("ms_per_user", None)
    return metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = launch(workdir, "--config.profile.enabled=True")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_the_tiny_config_ends_with_lists_metrics_and_a_report(whole):
    workdir, done = whole
    for name in ("metrics.json", "recommendations.parquet", "report.html", "history.jsonl"):
        assert (workdir / "results" / name).stat().st_size > 0
    metrics = metrics_of(workdir)
    assert 0 < metrics["test"]["ndcg@10"] < 1
    assert 0 < metrics["validation_search"]["coarse_recall"] < 1
    assert metrics["validation_search"]["alignment_kl"] > 0
    searches = metrics["retrieval"]
    assert searches["inverted"]["scored_fraction"] < searches["exact"]["scored_fraction"]
    for name, group in (("test", "retrieval_s2"), ("test_s1", "retrieval")):
        found = metrics[group]["inverted"]["ndcg@10"]
        np.testing.assert_allclose(metrics[name]["ndcg@10"], found, rtol=1e-6)
    # What is lost is told of the score that ranks.
    assert metrics["search"]["loss_ndcg@10"] == metrics["retrieval_s2"]["inverted"]["search_loss"]
    assert "calibrate: likeness in the modalities x" in done.stdout
    assert "leaves hold" in done.stdout
    assert searches["leaves"]["scored_fraction"] < 1 - 1e-6
    # ScaNN searches the same cells with the same score.
    np.testing.assert_allclose(
        searches["scann"]["ndcg@10"], searches["inverted"]["ndcg@10"], atol=1e-4
    )
    for word in ("popularity", "item_knn", "audio_knn", "inverted", "scann", "exact", "trunk"):
        assert word in done.stdout
    phases = json.loads((workdir / "profile" / "phases.json").read_text())
    names = ["trunk", "coarse", "gather", "fine", "top_k", "s2", "one program"]
    assert [row["phase"] for row in phases] == names


def test_the_same_command_again_scores_nothing_twice(whole):
    workdir, _ = whole
    manifest = workdir / "evaluation" / "manifest.json"
    before = manifest.stat().st_mtime_ns, metrics_of(workdir)
    done = launch(workdir)
    assert done.returncode == 0, done.stderr
    assert (manifest.stat().st_mtime_ns, metrics_of(workdir)) == before


def stream(server, interactions, end):
    """The state of every user after so many interactions each."""
    state = streaming.begin(server.streamer, interactions.n_users, server.width)
    for t in range(int(end.max())):
        at = np.minimum(interactions.offsets[:-1] + t, len(interactions.items) - 1)
        items = np.where(t < end, interactions.items[at], 0)
        state, _ = streaming.update(server.streamer, state, jnp.asarray(items, jnp.int32))
    return state


def test_a_server_lists_for_users_of_a_stream_what_the_evaluation_lists(whole):
    workdir, _ = whole
    interactions = builders.read(workdir / "data").interactions
    evaluation = read_evaluation(workdir / "evaluation")
    server = serving.load(workdir)
    assert server.method == "inverted"
    state = stream(server, interactions, split_end(interactions, "test"))
    found = jax.tree.map(np.asarray, serving.recommend(server, state))
    users, lists = evaluation.side.users, evaluation.lists
    # Sums of another batch, some beliefs half a step apart.
    assert (found.items[users] == lists.items).mean() > 0.99
    np.testing.assert_allclose(np.sort(found.scores[users]), np.sort(lists.scores), atol=1e-2)
    np.testing.assert_array_equal(found.scored[users], lists.scored)
    by_leaves, exact = (
        np.asarray(serving.recommend(serving.load(workdir, method), state).items)
        for method in ("leaves", "exact")
    )
    # Leaves hold .99 of the exact lists; `inverted` probes too few cells here for that.
    assert np.mean(by_leaves[:, :10] == exact[:, :10]) > 0.95
    assert np.mean(by_leaves[:, 0] == exact[:, 0]) > 0.98
    new = np.asarray(serving.recommend(server, state, only_new=True).items)
    history, k = np.asarray(state.history), new.shape[1]
    want = without_seen(found.items, history)
    some = np.count_nonzero(want, axis=1)
    assert 0 < some.sum() < np.count_nonzero(new)  # what lies behind them moves up
    np.testing.assert_array_equal(np.where(np.arange(k) < some[:, None], new, 0), want)
    nobody = serving.recommend(server, streaming.begin(server.streamer, 2, server.width))
    assert not nobody.items.any()
    assert np.all(np.asarray(nobody.scores) == -np.inf)


def test_what_cannot_be_served_is_refused_in_one_line(whole, tmp_path):
    workdir, _ = whole
    with pytest.raises(InputError, match="name another method"):
        serving.load(workdir, "scann")
    with pytest.raises(InputError, match=r"'pruned' is not among its decode.methods \(inverted"):
        serving.load(workdir, "pruned")
    with pytest.raises(InputError, match="name the --workdir of a run"):
        serving.load(tmp_path)
    other = tmp_path / "run"
    shutil.copytree(workdir, other)
    arrays, manifest = artifacts.read(other / "model", "model")
    arrays["params/coarse_codes"] += 1
    artifacts.write(other / "model", "model", arrays, manifest["inputs"], manifest["config"])
    with pytest.raises(InputError, match="of different trainings"):
        serving.load(other)
    del arrays["params/likeness_of_z"]
    artifacts.write(other / "model", "model", arrays, manifest["inputs"], manifest["config"])
    with pytest.raises(InputError, match=r"another semid_jax .*params/likeness_of_z"):
        serving.load(other)
    (other / "config.json").write_text("{}")
    with pytest.raises(InputError, match="torn"):
        serving.load(other)


def test_another_config_is_refused_in_one_line(whole):
    workdir, _ = whole
    done = launch(workdir, "--config.train.lr=0.5")
    assert done.returncode == 2
    assert "made by another config (train.lr differ)" in done.stderr


def test_a_killed_run_ends_with_the_same_metrics(whole, tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(workdir),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workdir / "results" / "metrics.json").exists()
    done = launch(workdir)
    assert done.returncode == 0, done.stderr
    assert "train: continues at step" in done.stdout
    ours, theirs = metrics_of(workdir), metrics_of(whole[0])
    for group in ("test", "validation", "sid", "pmat", "search"):
        assert ours[group] == theirs[group], group
    history = [(w / "results" / "history.jsonl").read_text() for w in (workdir, whole[0])]
    assert history[0] == history[1]


def test_a_run_says_which_products_it_was_trained_with():
    config, _ = resolve([f"--config={REPOSITORY}/configs/hdnag.py:movielens_1m"])
    assert config.loss.products == "auto"
    settle(config)
    assert config.loss.products in ("float32", "bfloat16")
    baseline, _ = resolve([f"--config={REPOSITORY}/configs/baselines/gpt2.py:tiny"])
    settle(baseline)


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("update_speed", "--config.quantize.digits=5", "5 does not divide the model width 32"),
        (
            "baselines/tiger",
            "--config.train.sliding=False",
            "train.sliding: tiger has one target per window",
        ),
        (
            "baselines/gpt2",
            "--config.decode.k=11",
            "decode.k: 11 items from decode.beam = 10; raise it",
        ),
        ("baselines/rpg", "--config.fuse.method=mmq", "fuse.method: rpg quantises by itself"),
    ],
)
def test_another_model_that_cannot_be_is_refused(model, setting, message):
    config, _ = resolve([f"--config={REPOSITORY}/configs/{model}.py:tiny", setting])
    with pytest.raises(InputError, match=message):
        CHECKS[config.recommender](config)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--config.quantize.shared=8", "quantize.shared: 8 of 8 digits"),
        ("--config.fuse.method=rqvae", "model.belief: only PMAT believes something"),
        ("--config.loss.products=half", "loss.products: 'half' is not one of float32"),
        ("--config.decode.methods=exact,graph", "decode.methods: 'graph' is unknown"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_no_trace(tmp_path, capsys, setting, message):
    asked = ["launch", *TINY, setting, f"--workdir={tmp_path / 'run'}"]
    assert launcher.main(asked) == launcher.BAD_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
