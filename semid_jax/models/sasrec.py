"""SASRec (Kang and McAuley, ICDM 2018): a causal transformer over items, scored by inner products.

With `features` the vector of an item is its own embedding plus a linear map of its modalities'
features: the same information that semantic IDs are made of.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.trunk import Trunk


@dataclasses.dataclass(frozen=True)
class SasRecConfig:
    """Sizes of SASRec.

    Attributes:
      width: D.
      layers: transformer blocks.
      heads: attention heads; divides width.
      dropout: on the input, the attention weights and the residual branches.
      features: items enter and are scored with their features too.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.5
    features: bool = False


class SasRec(nn.Module):
    """Item vectors, shared between input and output, and the trunk."""

    config: SasRecConfig
    n_items: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.02), (self.n_items + 1, c.width)
        )
        if c.features:
            self.features_in = nn.Dense(c.width, use_bias=False, name="features_in")

    def items(self, features: jax.Array | None) -> jax.Array:
        """float32[N + 1, D], the vectors of all items; row 0 is padding and zero.

        Args:
          features: float32[N + 1, sum of d_m], zero where a modality is missing; None without.
        """
        vectors = jnp.asarray(self.embedding)
        if self.config.features:
            vectors = vectors + self.features_in(features)
        return vectors.at[0].set(0.0)

    def states(
        self, items: jax.Array, history: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """The state after each item of a history.

        Args:
          items: float32[N + 1, D], of `items`.
          history: int32[B, T], right padded.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, D]; the score of item i is <state, items[i]>.
        """
        x = items[history] * self.config.width**0.5
        return self.trunk(x, seeds)

    def __call__(
        self, features: jax.Array | None, history: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(item vectors, states)."""
        items = self.items(features)
        return items, self.states(items, history, seeds)


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
