"""One small encoder per modality: features to unit vectors, and back for reconstruction."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


def unit(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """x / |x| along the last axis, with a finite gradient at zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon)


class ModalityEncoder(nn.Module):
    """x[m] to e[m]: a linear map plus a two-layer perceptron, on the unit sphere.

    The linear path starts orthogonal and the perceptron's output at zero, so that the cosines of
    the features are there before the first step.
    """

    width: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[n, d_m] to unit float[n, D]."""
        linear = nn.Dense(
            self.width, use_bias=False, kernel_init=nn.initializers.orthogonal(), name="linear"
        )(x)
        h = jax.nn.gelu(nn.Dense(self.hidden, name="hidden")(x))
        return unit(linear + nn.Dense(self.width, kernel_init=nn.initializers.zeros, name="out")(h))


class ModalityDecoder(nn.Module):
    """e[m] back to x[m], for the reconstruction loss only."""

    features: int

    @nn.compact
    def __call__(self, e: jax.Array) -> jax.Array:
        """float[n, D] to float[n, d_m]."""
        return nn.Dense(self.features, name="out")(e)
