"""The sequence baselines against their equations in plain numpy, and through the launcher."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY
from slow_models import gelu, norm, random_params, slow_trunk

from semid_jax.models.bert4rec import Bert4Rec, Bert4RecConfig, choose_hidden
from semid_jax.models.dropout import example_seeds
from semid_jax.models.full_softmax import full_softmax_loss
from semid_jax.models.gru4rec import Gru4Rec, Gru4RecConfig
from semid_jax.models.sasrec import SasRec, SasRecConfig

N, T, D, F = 12, 6, 8, 5


@pytest.mark.parametrize("with_features", [False, True])
def test_states_and_loss_are_those_of_the_equations(with_features):
    rng = np.random.default_rng(0)
    config = SasRecConfig(width=D, layers=2, heads=2, features=with_features)
    model = SasRec(config, N, T)
    features = rng.normal(size=(N + 1, F)).astype(np.float32)
    history = rng.integers(1, N + 1, (3, T)).astype(np.int32)
    params, p = random_params(model, jnp.asarray(features), history, rng=rng)
    items, states = model.apply(params, jnp.asarray(features), history)
    own = p["vectors"]
    slow_items = own["embedding"].copy()
    if with_features:
        slow_items += features @ own["features_in"]["kernel"]
    slow_items[0] = 0
    np.testing.assert_allclose(items, slow_items, atol=1e-5)
    for b in range(3):
        slow = slow_trunk(slow_items[history[b]] * np.sqrt(D), p["trunk"], 2, 2)
        np.testing.assert_allclose(states[b], slow, atol=2e-4)

    targets = rng.integers(1, N + 1, 3 * T).astype(np.int32)
    weight = (rng.random(3 * T) < 0.7).astype(np.float32)
    flat = np.asarray(states).reshape(-1, D)
    expected = 0.0
    for s, target, w in zip(flat, targets, weight, strict=True):
        logits = slow_items[1:] @ s
        expected += w * (np.log(np.exp(logits).sum()) - logits[target - 1])
    found = full_softmax_loss(*map(jnp.asarray, (flat, items, targets, weight)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_gru4rec_is_a_gated_recurrence():
    rng = np.random.default_rng(0)
    model = Gru4Rec(Gru4RecConfig(width=D, layers=2), N, T)
    history = rng.integers(1, N + 1, (3, T)).astype(np.int32)
    params, p = random_params(model, None, history, rng=rng)
    items, states = model.apply(params, None, history)

    def gate(g, name, x, h):
        """The cell's affine map of input and state; only one of the two has a bias."""
        i, r = g[f"i{name}"], g[f"h{name}"]
        return x @ i["kernel"] + i["bias"], h @ r["kernel"] + r.get("bias", 0.0)

    for b in range(3):
        x = np.asarray(items, float)[history[b]] * np.sqrt(D)
        for layer in range(2):
            g, h, out = p[f"recurrent{layer}"]["cell"], np.zeros(D), []
            for x_t in x:
                reset = 1 / (1 + np.exp(-sum(gate(g, "r", x_t, h))))
                update = 1 / (1 + np.exp(-sum(gate(g, "z", x_t, h))))
                own, past = gate(g, "n", x_t, h)
                h = (1 - update) * np.tanh(own + reset * past) + update * h
                out.append(h)
            x = np.stack(out)
        slow = x @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(states[b], slow, atol=2e-4)


def test_bert4rec_fills_in_masks_from_both_sides():
    rng = np.random.default_rng(0)
    model = Bert4Rec(Bert4RecConfig(width=D, layers=2, heads=2), N, T)
    history = rng.integers(1, N + 1, (3, T)).astype(np.int32)
    history[1, 4:] = 0
    params, p = random_params(model, None, history, rng=rng)
    items = model.apply(params, None, method="items")
    found = model.apply(params, items, history, method="last")
    vectors = np.asarray(items, float)
    np.testing.assert_allclose(vectors[:, -1], p["bias"], atol=1e-6)
    for b in range(3):
        real = history[b][history[b] > 0]
        x = np.concatenate([vectors[real, :-1], p["mask_vector"][None]]) * np.sqrt(D)
        x = slow_trunk(x, p["trunk"], 2, 2, causal=False)[-1]
        y = norm(gelu(x @ p["transform"]["kernel"] + p["transform"]["bias"]), p["transform_norm"])
        np.testing.assert_allclose(found[b], [*y, 1.0], atol=5e-4)


def test_the_cloze_task_masks_real_places_the_last_or_some():
    sequence = np.zeros((400, 9), np.int32)
    lengths = np.random.default_rng(0).integers(2, 10, 400)
    for row, length in enumerate(lengths):
        sequence[row, :length] = row + 1
    end = np.arange(9) == lengths[:, None] - 1
    seeds = example_seeds(jnp.arange(400, dtype=jnp.uint32), jnp.int32(3))
    hidden = np.asarray(choose_hidden(jnp.asarray(sequence), jnp.asarray(end), seeds, 0.3, 0.2))
    assert not hidden[sequence == 0].any()
    assert hidden.any(axis=1).all()
    only_last = (hidden == end).all(axis=1)
    long = lengths >= 7
    assert 0.13 < only_last[long].mean() < 0.3
    share = hidden[long & ~only_last].sum() / (sequence[long & ~only_last] > 0).sum()
    assert 0.25 < share < 0.4
    other = choose_hidden(
        jnp.asarray(sequence), jnp.asarray(end), example_seeds(jnp.arange(400), jnp.int32(4)), 0.3,
        0.2,
    )  # fmt: skip
    assert (np.asarray(other) != hidden).any()


def launch(model, workdir, *options):
    command = [
        sys.executable, "-m", "semid_jax.launch", f"--config=configs/baselines/{model}.py:tiny",
        "--config.synthetic.n_users=120", "--config.train.epochs=1", f"--workdir={workdir}",
        *options,
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        ("sasrec", "SASRec", ["--config.model.features=True"]),
        ("tiger", "TIGER", []),
        *(
            pytest.param(model, name, options, marks=pytest.mark.slow)
            for model, name, options in (
                ("gru4rec", "GRU4Rec", ["--config.model.features=True"]),
                ("bert4rec", "BERT4Rec", ["--config.model.features=True"]),
                ("rpg", "RPG", []),
                ("gpt2", "GPT2", []),
            )
        ),
    ],
)
def test_a_baseline_runs_through_the_launcher(tmp_path, model, name, options):
    printed = launch(model, tmp_path / "run", *options)
    assert name in printed
    results = tmp_path / "run" / "results"
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["run"]["model"] == model
    assert 0 < metrics["test"]["ndcg@10"] < 1
    assert ("retrieval" in metrics) == (model == "rpg")
    assert (results / "report.html").stat().st_size > 0


def test_a_tuning_run_does_not_look_at_test_and_can_go_on(tmp_path):
    run = tmp_path / "run"
    printed = launch("sasrec", run, "--config.validate_only=True")
    assert "validation NDCG@10" in printed
    assert "the test split was not looked at" in printed
    assert not (run / "evaluation").exists()
    assert not (run / "results" / "metrics.json").exists()
    history = (run / "results" / "history.jsonl").read_text()
    launch("sasrec", run)
    assert (run / "results" / "history.jsonl").read_text() == history
    assert (run / "results" / "metrics.json").exists()
