"""What a tokenizer makes of a catalogue, and how it is trained: the same for every one of them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from semid_jax.quantize.codebook import Codebook
from semid_jax.types import ItemFeatures

LEAST_VARIANCE = 1e-7  # of a component, as a share of the widest one's
SCAN = 50  # most steps of one call: a step is short, and a call costs as much


@dataclasses.dataclass(frozen=True)
class Contexts:
    """IDs of which an item may have several, and which one every interaction means.

    Attributes:
      points: float32[V + 1, D], what each ID stands for; row 0 is padding.
      coarse: int32[V + 1], its codes.
      fine: uint8[V + 1, L].
      owner: int32[V + 1], whose ID it is.
      uses: int32[nnz], the ID of every interaction, by what comes before it and itself.
    """

    points: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    owner: np.ndarray
    uses: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fused:
    """A catalogue as a tokenizer sees it.

    Attributes:
      points: float32[N + 1, D], the fused embedding of every item; row 0 is zero.
      book: the tokenizer's own codebook: an item's native codes are those of its point.
      contexts: native IDs where an item has more than one; None where it has one.
    """

    points: np.ndarray
    book: Codebook
    contexts: Contexts | None = None


def side_by_side(features: ItemFeatures) -> np.ndarray:
    """float32[N + 1, sum of d_m], all modalities; a missing one is zero, its mean."""
    return np.concatenate([features.x[name] for name in features.modalities], axis=1)


def principal(points: np.ndarray, seen: np.ndarray, width: int) -> np.ndarray:
    """Principal components, each of variance one (whitened); zero where the points do not vary.

    Args:
      points: float32[n, d].
      seen: bool[n], rows to fit on.
      width: components kept, fewer where there are fewer.

    Returns:
      float32[n, min(width, d)].
    """
    mean, turn = whitening(points, seen, width)
    made: np.ndarray = (points - mean) @ turn
    return made.astype(np.float32)


def whitening(points: np.ndarray, seen: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What is taken from points, and what they are multiplied by, to become `principal` ones.

    Args:
      points: float32[n, d].
      seen: bool[n], rows to fit on.
      width: components kept, fewer where there are fewer.

    Returns:
      float64[d], and float64[d, min(width, d)].
    """
    mean, axes, values = _axes(points, seen, width)
    # What varies only by rounding, or only in items that were not seen, would be blown up.
    varies = values > LEAST_VARIANCE * values.max()
    return mean, axes * np.where(varies, 1 / np.sqrt(np.where(varies, values, 1.0)), 0.0)


def to_width(points: np.ndarray, train_items: np.ndarray, width: int) -> np.ndarray:
    """Fused embeddings at the width that the generator and its quantiser work with.

    Args:
      points: float32[N + 1, D'].
      train_items: bool[N + 1], items that may be seen.
      width: D.

    Returns:
      float32[N + 1, D], the first D principal components, zeros behind them where there are fewer,
      scaled to mean squared norm 1 over the training items; row 0 is zero.
    """
    mean, axes, values = _axes(points, train_items, points.shape[1])
    if width < len(values):
        kept = values[:width].sum() / values.sum()
        print(f"tokenize: {width} of {len(values)} components hold {kept:.1%} of the variance")
    made = (points - mean) @ axes[:, :width]
    made /= np.sqrt((made[train_items] ** 2).sum(axis=1).mean())
    made[0] = 0
    return np.pad(made, ((0, 0), (0, width - made.shape[1]))).astype(np.float32)


def _axes(
    points: np.ndarray, seen: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, first `width` principal axes as columns, and their variances."""
    shown = points[seen].astype(np.float64)
    values, axes = np.linalg.eigh(np.cov(shown.T))
    return shown.mean(axis=0), axes[:, ::-1][:, :width], values[::-1][:width]


def train(
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    params: Any,
    data: Any,
    draw: Callable[[np.random.Generator, int], Any],
    steps: int,
    lr: float,
    seed: int,
    name: str,
) -> Any:
    """Adam with warm-up and cosine decay.

    Args:
      loss: of (params, data, batch, key): float32[] and its parts.
      params: to start from.
      data: arrays that every step reads.
      draw: of a generator and a number of steps: the batches' rows, integers [steps, ...].
      steps: of the optimiser, made up so that all calls take as many; 0 leaves params as they are.
      lr: at the peak.
      seed: of the batches and of what is random in the loss.
      name: of the tokenizer, for the progress bar.

    Returns:
      Parameters after the last step.
    """
    if not steps:
        return params
    calls = -(-steps // SCAN)
    each = -(-steps // calls)
    total = calls * each
    schedule = optax.warmup_cosine_decay_schedule(0.0, lr, min(100, total // 5), total)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0))
    generator, key = np.random.default_rng((seed, 21)), jax.random.key(seed)

    @jax.jit
    def run(params: Any, state: Any, data: Any, batches: Any, first: jax.Array) -> Any:
        def step(carry: Any, at: Any) -> Any:
            params, state = carry
            batch, number = at
            own = jax.random.fold_in(key, number)
            gradient, parts = jax.grad(loss, has_aux=True)(params, data, batch, own)
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), parts

        numbers = first + jnp.arange(each)
        (params, state), parts = jax.lax.scan(step, (params, state), (batches, numbers))
        return params, state, jax.tree.map(jnp.mean, parts)

    state = optimiser.init(params)
    parts: dict[str, jax.Array] = {}
    bar = tqdm(total=total, desc=name, unit="step", file=sys.stderr, mininterval=2.0)
    for first in range(0, total, each):
        batches = draw(generator, each)
        params, state, parts = run(params, state, data, batches, jnp.int32(first))
        bar.update(each)
    bar.close()
    said = ", ".join(f"{part} {float(value):.4f}" for part, value in parts.items())
    print(f"tokenize: {name} after {total} steps: {said}")
    return params


def draw_items(items: np.ndarray, size: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Batches of items, uniform over them.

    Args:
      items: int64[n], item numbers.
      size: of a batch.
    """
    return functools.partial(_draw_items, items, size)


def _draw_items(
    items: np.ndarray, size: int, generator: np.random.Generator, steps: int
) -> np.ndarray:
    return generator.choice(items, (steps, size)).astype(np.int32)
