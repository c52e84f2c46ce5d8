"""Training windows as whole sequences: inputs, and behind them the last target."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def append(history: jax.Array, item: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts one item behind each history.

    Args:
      history: int32[B, T], right padded with 0.
      item: int32[B].

    Returns:
      int32[B, T + 1], and bool[B, T + 1], True at the new item.
    """
    place = jnp.sum(history > 0, axis=1, keepdims=True)
    longer = jnp.pad(history, ((0, 0), (0, 1)))
    here = jnp.arange(longer.shape[1]) == place
    return jnp.where(here, item[:, None], longer), here


def newest(inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """int32[B], the last target of each window int32[B, T]; 0 where the row bears no loss."""
    length = jnp.sum(inputs > 0, axis=1)
    return targets[jnp.arange(len(inputs)), jnp.maximum(length - 1, 0)]
