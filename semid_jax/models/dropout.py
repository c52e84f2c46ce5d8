"""Dropout whose mask depends on the example, not on where the example lies.

The mask is an integer hash of (example, step, site, element). It is the same on one device or on
many, costs a few fused integer operations, and needs no random bits from memory (the default
generator of JAX takes longer on a CPU than the layer it regularises).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def mix(x: jax.Array) -> jax.Array:
    """Finaliser of MurmurHash3: uint32 -> well mixed uint32."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x85EBCA6B)
    x = x ^ (x >> 13)
    x = x * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def example_seeds(example: jax.Array, step: jax.Array) -> jax.Array:
    """One seed per example and step.

    Args:
      example: uint32[B], a number that names the example.
      step: int32[], the training step.

    Returns:
      uint32[B].
    """
    return mix(example.astype(jnp.uint32) ^ mix(step.astype(jnp.uint32) + jnp.uint32(0x9E3779B9)))


def example_bits(seeds: jax.Array, shape: tuple[int, ...], site: int) -> jax.Array:
    """Random bits that depend on the example and the element.

    Args:
      seeds: uint32[B] of `example_seeds`.
      shape: of one example's bits.
      site: a number that differs for every place of the network.

    Returns:
      uint32[B, *shape].
    """
    element = jnp.arange(math.prod(shape), dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
    row = mix(seeds + jnp.uint32(site) * jnp.uint32(0x7FEB352D))
    return mix(row[:, None] ^ element[None, :]).reshape(len(seeds), *shape)


def below(bits: jax.Array, rate: float) -> jax.Array:
    """bool, True with probability `rate` for uniform bits uint32."""
    return bits < jnp.uint32(min(int(rate * 2**32), 2**32 - 1))


def dropout(x: jax.Array, seeds: jax.Array | None, rate: float, site: int) -> jax.Array:
    """Sets elements to zero with probability `rate` and scales the others.

    Args:
      x: float[B, ...].
      seeds: uint32[B] of `example_seeds`, or None for no dropout (evaluation).
      rate: share of the elements set to zero.
      site: a number that differs for every place of the network.

    Returns:
      float[B, ...].
    """
    if seeds is None or rate == 0.0:
        return x
    drop = below(example_bits(seeds, x.shape[1:], site), rate)
    return jnp.where(drop, 0.0, x / (1.0 - rate))
