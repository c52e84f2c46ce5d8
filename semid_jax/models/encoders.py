"""Items' features as unit vectors of one width: what a modality says of an item."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.types import ItemFeatures


def unit(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """x / |x| along the last axis, with a finite gradient at zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon)


def encode(features: ItemFeatures, width: int) -> jax.Array:
    """e[i, m]: the direction of an item's first D principal components.

    Nothing is learned here. An encoder that was trained, on next items or to reconstruct, lost a
    quarter of what neighbours in e say of the next item (BUILD_NOTES.md).

    Args:
      features: normalised features, components by falling variance.
      width: D; narrower modalities are filled up with zeros.

    Returns:
      float32[N + 1, M, D], unit norm; zero where an item lacks the modality.
    """
    parts = []
    for name in features.modalities:
        x = jnp.asarray(features.x[name][:, :width])
        part = unit(x, 1e-12) * features.present[name][:, None]
        parts.append(jnp.pad(part, ((0, 0), (0, width - x.shape[1]))))
    return jnp.stack(parts, axis=1)
