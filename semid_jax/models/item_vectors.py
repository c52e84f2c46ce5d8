"""One dense vector per item, shared between a sequence model's input and its output."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class ItemVectors(nn.Module):
    """An embedding, plus, if asked for, a linear map of the modalities' features."""

    n_items: int
    width: int
    with_features: bool

    @nn.compact
    def __call__(self, features: jax.Array | None) -> jax.Array:
        """float32[N + 1, D], the vectors of all items; row 0 is padding and zero.

        Args:
          features: float32[N + 1, sum of d_m], zero where a modality is missing; None without.
        """
        table = self.param(
            "embedding", nn.initializers.normal(0.02), (self.n_items + 1, self.width)
        )
        vectors = jnp.asarray(table)
        if self.with_features:
            vectors = vectors + nn.Dense(self.width, use_bias=False, name="features_in")(features)
        return vectors.at[0].set(0.0)


def last_of(states: jax.Array, history: jax.Array) -> jax.Array:
    """The state at the last item of each history.

    Args:
      states: float32[B, T, D].
      history: int32[B, T], right padded with 0.

    Returns:
      float32[B, D].
    """
    last = jnp.maximum(jnp.sum(history > 0, axis=1) - 1, 0)
    return states[jnp.arange(len(last)), last]


def full_softmax_loss(
    states: jax.Array, items: jax.Array, targets: jax.Array, weight: jax.Array
) -> jax.Array:
    """Cross-entropy of the true next item among all items.

    Args:
      states: float32[n, D].
      items: float32[N + 1, D]; row 0, padding, is no candidate.
      targets: int32[n], 1..N where weight is not zero.
      weight: float32[n].

    Returns:
      float32[], sum.
    """
    logits = states @ items.T
    logits = logits.at[:, 0].set(-1e9)
    own = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=1) - own) * weight)
