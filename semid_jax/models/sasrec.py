"""SASRec (Kang and McAuley, ICDM 2018): a causal transformer over items."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from semid_jax.models.item_vectors import ItemVectors, last_of
from semid_jax.models.trunk import Trunk


@dataclasses.dataclass(frozen=True)
class SasRecConfig:
    """Sizes of SASRec.

    Attributes:
      width: D.
      layers: transformer blocks.
      heads: attention heads; divides width.
      dropout: on the input, the attention weights and the residual branches.
      features: items enter and are scored with the features that semantic IDs are made of.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.5
    features: bool = False


class SasRec(nn.Module):
    """Item vectors and a causal trunk."""

    config: SasRecConfig
    n_items: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        self.vectors = ItemVectors(self.n_items, c.width, c.features)

    def items(self, features: jax.Array | None) -> jax.Array:
        """float32[N + 1, D], the vectors of all items, see `ItemVectors`."""
        return self.vectors(features)

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
        return self.trunk(items[history] * self.config.width**0.5, seeds)

    def last(self, items: jax.Array, history: jax.Array) -> jax.Array:
        """float32[B, D], the state after the last item of each history int32[B, T]."""
        return last_of(self.states(items, history), history)

    def __call__(
        self, features: jax.Array | None, history: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(item vectors, states)."""
        items = self.items(features)
        return items, self.states(items, history, seeds)
