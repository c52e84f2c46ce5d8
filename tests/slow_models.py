"""The parts that sequence models share, from their equations in plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attend(x, p, heads, causal):
    """Self-attention of one history [T, D], position by position."""
    q, k, v = np.split((x @ p["qkv"]["kernel"]).reshape(len(x), 3 * heads, -1), 3, axis=1)
    out = np.zeros((len(x), heads, q.shape[-1]))
    for h in range(heads):
        for t in range(len(x)):
            end = t + 1 if causal else len(x)
            logits = k[:end, h] @ q[t, h] / np.sqrt(q.shape[-1])
            weight = np.exp(logits - logits.max())
            out[t, h] = (weight / weight.sum()) @ v[:end, h]
    return out.reshape(len(x), -1) @ p["out"]["kernel"]


def slow_trunk(x, p, layers, heads, causal=True):
    x = norm(x + p["positions"][: len(x)], p["input_norm"])
    for layer in range(layers):
        b = p[f"block{layer}"]
        x = x + attend(norm(x, b["attention_norm"]), b, heads, causal)
        y = norm(x, b["feed_forward_norm"]) @ b["up"]["kernel"] + b["up"]["bias"]
        x = x + gelu(y) @ b["down"]["kernel"] + b["down"]["bias"]
    return norm(x, p["output_norm"])


def random_params(model, *inputs, rng):
    params = model.init(jax.random.key(0), *inputs)
    params = jax.tree.map(
        lambda a: jnp.asarray(a + 0.3 * rng.normal(size=a.shape), jnp.float32), params
    )
    return params, jax.tree.map(lambda a: np.asarray(a, float), params["params"])
