"""SASRec against its equations in plain numpy, and through the launcher."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

from semid_jax.models.sasrec import SasRec, SasRecConfig, full_softmax_loss

N, T, D, F = 12, 6, 8, 5


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attend(x, p, heads):
    """Causal self-attention of one history [T, D], position by position."""
    q, k, v = np.split((x @ p["qkv"]["kernel"]).reshape(len(x), 3 * heads, -1), 3, axis=1)
    out = np.zeros((len(x), heads, q.shape[-1]))
    for h in range(heads):
        for t in range(len(x)):
            logits = k[: t + 1, h] @ q[t, h] / np.sqrt(q.shape[-1])
            weight = np.exp(logits - logits.max())
            out[t, h] = (weight / weight.sum()) @ v[: t + 1, h]
    return out.reshape(len(x), -1) @ p["out"]["kernel"]


def slow_states(p, items, history, layers, heads):
    p = p["trunk"]
    x = items[history] * np.sqrt(D) + p["positions"][: len(history)]
    x = norm(x, p["input_norm"])
    for layer in range(layers):
        b = p[f"block{layer}"]
        x = x + attend(norm(x, b["attention_norm"]), b, heads)
        y = norm(x, b["feed_forward_norm"]) @ b["up"]["kernel"] + b["up"]["bias"]
        x = x + gelu(y) @ b["down"]["kernel"] + b["down"]["bias"]
    return norm(x, p["output_norm"])


@pytest.mark.parametrize("with_features", [False, True])
def test_states_and_loss_are_those_of_the_equations(with_features):
    rng = np.random.default_rng(0)
    config = SasRecConfig(width=D, layers=2, heads=2, features=with_features)
    model = SasRec(config, N, T)
    features = rng.normal(size=(N + 1, F)).astype(np.float32)
    history = rng.integers(1, N + 1, (3, T)).astype(np.int32)
    params = model.init(jax.random.key(0), jnp.asarray(features), history)
    params = jax.tree.map(
        lambda a: jnp.asarray(a + 0.3 * rng.normal(size=a.shape), jnp.float32), params
    )
    items, states = model.apply(params, jnp.asarray(features), history)
    p = jax.tree.map(lambda a: np.asarray(a, float), params["params"])
    slow_items = p["embedding"] + (features @ p["features_in"]["kernel"] if with_features else 0)
    slow_items[0] = 0
    np.testing.assert_allclose(items, slow_items, atol=1e-5)
    for b in range(3):
        slow = slow_states(p, slow_items, history[b], 2, 2)
        np.testing.assert_allclose(states[b], slow, atol=2e-4)

    targets = rng.integers(1, N + 1, 3 * T).astype(np.int32)
    weight = (rng.random(3 * T) < 0.7).astype(np.float32)
    flat = np.asarray(states).reshape(-1, D)
    expected = 0.0
    for s, target, w in zip(flat, targets, weight, strict=True):
        logits = slow_items[1:] @ s
        expected += w * (np.log(np.exp(logits).sum()) - logits[target - 1])
    found = full_softmax_loss(jnp.asarray(flat), items, targets, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_sasrec_runs_through_the_launcher(tmp_path):
    command = [
        sys.executable, "-m", "semid_jax.launch", "--config=configs/baselines/sasrec.py:tiny",
        "--config.synthetic.users=120", "--config.model.features=True", "--config.train.epochs=1",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "SASRec" in done.stdout
    metrics = json.loads((tmp_path / "run" / "results" / "metrics.json").read_text())
    assert metrics["run"]["model"] == "sasrec"
    assert 0 < metrics["test"]["ndcg@10"] < 1
    assert "retrieval" not in metrics
    assert (tmp_path / "run" / "results" / "report.html").stat().st_size > 0
