"""Cross-entropy of the right item among all items."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.models.chunked import chunk_rows, chunked_loss


def full_softmax_loss(
    states: jax.Array, items: jax.Array, targets: jax.Array, weight: jax.Array
) -> jax.Array:
    """Sum over positions of weight x -log softmax(<state, items>)[target].

    Args:
      states: float32[n, D].
      items: float32[N + 1, D]; row 0, padding, is no candidate.
      targets: int32[n], 1..N where weight is not zero.
      weight: float32[n], 0 where a position bears no loss.

    Returns:
      float32[].
    """
    rows = chunk_rows(len(items), len(states))
    return chunked_loss(_item_losses, rows, items, states, targets, weight)


def _item_losses(items: jax.Array, states: jax.Array, targets: jax.Array) -> jax.Array:
    scores = (states @ items.T).at[:, 0].set(-1e9)
    own = jnp.take_along_axis(scores, targets[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(scores, axis=1) - own
