"""GRU4Rec (Hidasi et al., ICLR 2016; Hidasi and Karatzoglou, CIKM 2018), with a full softmax.

The recommended variant of the second paper ties input and output embeddings; sampled losses are
replaced by cross-entropy over all items, as for every baseline here.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from semid_jax.models.dropout import dropout
from semid_jax.models.item_vectors import ItemVectors, NextItemModel
from semid_jax.models.linear import Dense


@dataclasses.dataclass(frozen=True)
class Gru4RecConfig:
    """Sizes of GRU4Rec.

    Attributes:
      width: D, of items and of the hidden state.
      layers: recurrent layers.
      dropout: on the input and on every layer's output.
      features: items enter and are scored with the features that semantic IDs are made of.
    """

    width: int = 128
    layers: int = 1
    dropout: float = 0.3
    features: bool = False


class Gru4Rec(NextItemModel):
    """Item vectors and gated recurrent units."""

    config: Gru4RecConfig

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.vectors = ItemVectors(self.n_items, c.width, c.features)
        self.recurrent = [
            nn.RNN(nn.GRUCell(c.width), name=f"recurrent{layer}") for layer in range(c.layers)
        ]
        self.out = Dense(c.width, name="out")

    def states(
        self, items: jax.Array, history: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """See `NextItemModel`."""
        rate = self.config.dropout
        x = dropout(items[history] * self.config.width**0.5, seeds, rate, 1)
        for layer, recurrent in enumerate(self.recurrent):
            x = dropout(recurrent(x), seeds, rate, 8 * (layer + 1))
        return self.out(x)
