"""Items' features as unit vectors of one width: what a modality says of an item."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ROWS = 65536  # items encoded at once


def unit(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """x / |x| along the last axis, with a finite gradient at zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon)


def encode(x: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], width: int) -> jax.Array:
    """e[i, m]: the direction of an item's first D principal components, turned by modality.

    The turn keeps modalities narrower than D out of each other's way in their sum z. Nothing is
    learned here. An encoder that was trained, on next items or to reconstruct, lost a quarter of
    what neighbours in e say of the next item (BUILD_NOTES.md).

    Args:
      x: modality -> float32[n, d_m], normalised features, components by falling variance.
      present: modality -> bool[n].
      width: D.

    Returns:
      float32[n, M, D], unit norm, modalities sorted; zero where an item lacks one.
    """
    n = len(x[min(x)])
    made = np.empty((n, len(x), width), np.float32)
    for m, name in enumerate(sorted(x)):
        turn = jax.random.orthogonal(jax.random.key(zlib.crc32(name.encode())), width)
        for at in range(0, n, ROWS):
            rows = slice(at, at + ROWS)
            made[rows, m] = _direction(x[name][rows, :width], present[name][rows], turn)
    return jnp.asarray(made)


@jax.jit
def _direction(components: jax.Array, present: jax.Array, turn: jax.Array) -> jax.Array:
    """One modality's e of items float32[n, d], d at most D, by turn float32[D, D]."""
    return (unit(components, 1e-12) * present[:, None]) @ turn[: components.shape[1]]


class Refiner(nn.Module):
    """e[m] to h[m], what z takes of a modality: e, a linear map of it and a two-layer perceptron's.

    Both start at zero, so that h is e before the first step, if nothing is added.
    """

    hidden: int

    @nn.compact
    def __call__(self, e: jax.Array, added: jax.Array | float = 0.0) -> jax.Array:
        """Unit float[..., D], and what is added to it, to unit float[..., D]; zero stays zero."""
        width, zeros = e.shape[-1], nn.initializers.zeros
        turned = nn.Dense(width, use_bias=False, kernel_init=zeros, name="linear")(e)
        # Coordinates of variance one: those of a unit vector are so small that nothing would bend.
        inner = jax.nn.gelu(nn.Dense(self.hidden, use_bias=False, name="hidden")(width**0.5 * e))
        bent = nn.Dense(width, use_bias=False, kernel_init=zeros, name="out")(inner)
        return unit(e + turned + bent + added)
