"""SASRec (Kang and McAuley, ICDM 2018): a causal transformer over items."""

from __future__ import annotations

import dataclasses

import jax

from semid_jax.models.item_vectors import ItemVectors, NextItemModel
from semid_jax.models.rows import every_place
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


class SasRec(NextItemModel):
    """Item vectors and a causal trunk."""

    config: SasRecConfig

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        self.vectors = ItemVectors(self.n_items, c.width, c.features)

    def states(
        self, items: jax.Array, history: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """See `NextItemModel`."""
        return self.trunk(items[history] * self.config.width**0.5, seeds)

    def last(self, items: jax.Array, history: jax.Array) -> jax.Array:
        """See `NextItemModel`."""
        rows = every_place(history > 0)
        return self.trunk.last(items[rows.pack(history)] * self.config.width**0.5, rows)
