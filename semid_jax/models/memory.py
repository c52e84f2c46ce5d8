"""Running sums of a history: all that preference and interest need, O(1) per interaction.

A history enters the perceiver only through sums over its items. The sums of every prefix are one
cumulative sum (training), the sums of a stream are one addition (serving), and the two are equal.
Design part 3.2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Memory:
    """Sums over a set of items, per modality; missing modalities add nothing.

    Attributes:
      weighted: float32[..., M, D], sum of w_i (e_i - mean e): the attention summary's numerator.
      weight: float32[..., M], sum of w_i: its denominator.
      total: float32[..., M, D], sum of (e_i - mean e).
      own: float32[..., M], sum of w_i |e_i - mean e|^2: what an item says about itself.
      count: float32[..., M], items that have the modality.
    """

    weighted: jax.Array
    weight: jax.Array
    total: jax.Array
    own: jax.Array
    count: jax.Array


def contribution(e: jax.Array, mean: jax.Array, weight: jax.Array, mask: jax.Array) -> Memory:
    """What one item adds.

    Args:
      e: float32[..., M, D], encoded modalities.
      mean: float32[M, D], the population's mean of e.
      weight: float32[..., M], attention weight (positive).
      mask: bool[..., M], which modalities the item has; all False for padding.

    Returns:
      Memory with the leading axes of e.
    """
    m = mask.astype(e.dtype)
    centred = (e - mean) * m[..., None]
    w = weight * m
    return Memory(
        weighted=centred * w[..., None],
        weight=w,
        total=centred,
        own=w * jnp.sum(centred * centred, axis=-1),
        count=m,
    )


def add(left: Memory, right: Memory) -> Memory:
    """The memory of two disjoint histories together."""
    return jax.tree.map(jnp.add, left, right)


def total_over(memory: Memory, axis: int) -> Memory:
    """The memory of all items along `axis`."""
    return jax.tree.map(lambda a: jnp.sum(a, axis=axis), memory)


def prefixes(memory: Memory, window: int) -> tuple[Memory, Memory]:
    """Memories of what came before each position.

    Args:
      memory: contributions with axes [B, T, ...].
      window: W, length of the short-term memory.

    Returns:
      (long, short), each with axes [B, T, ...]; entry t covers items 0..t-1 and max(0, t-W)..t-1.
    """

    def before(a: jax.Array) -> jax.Array:
        c = jnp.cumsum(a, axis=1)
        return jnp.concatenate([jnp.zeros_like(c[:, :1]), c[:, :-1]], axis=1)

    long = jax.tree.map(before, memory)

    def recent(a: jax.Array) -> jax.Array:
        t = a.shape[1]
        shifted = jnp.concatenate(
            [jnp.zeros_like(a[:, : min(window, t)]), a[:, : max(t - window, 0)]], 1
        )
        return a - shifted

    return long, jax.tree.map(recent, long)


def coherence(memory: Memory) -> jax.Array:
    """How much a history agrees with itself, per modality, each item left out of its own summary.

    mean_i <summary without i, e_i - mean e>, the summary weighted by attention; zero in expectation
    for a history drawn at random, and zero where fewer than two items have the modality.

    Returns:
      float32[..., M].
    """
    cross = jnp.sum(memory.weighted * memory.total, axis=-1) - memory.own
    pairs = memory.weight * (memory.count - 1.0)
    return jnp.where(memory.count > 1.5, cross / jnp.maximum(pairs, 1e-6), 0.0)
