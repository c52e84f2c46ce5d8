"""BERT4Rec (Sun et al., CIKM 2019): a transformer that sees both sides fills in masked items."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.dropout import below, example_bits
from semid_jax.models.item_vectors import ItemVectors
from semid_jax.models.linear import Dense
from semid_jax.models.trunk import Trunk, last_of
from semid_jax.models.windows import append


@dataclasses.dataclass(frozen=True)
class Bert4RecConfig:
    """Sizes of BERT4Rec.

    Attributes:
      width: D.
      layers: transformer blocks.
      heads: attention heads; divides width.
      dropout: on the input, the attention weights and the residual branches.
      masked: share of the items that training masks.
      last_only: share of the sequences in which training masks the last item and no other, as a
        recommendation does.
      features: items enter and are scored with the features that semantic IDs are made of.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    masked: float = 0.3
    last_only: float = 0.2
    features: bool = False


class Bert4Rec(nn.Module):
    """Item vectors with biases, a mask vector and a trunk that sees all."""

    config: Bert4RecConfig
    n_items: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length + 1, c.dropout)
        self.vectors = ItemVectors(self.n_items, c.width, c.features)
        self.bias = self.param("bias", nn.initializers.zeros, (self.n_items + 1,))
        self.mask_vector = self.param("mask_vector", nn.initializers.normal(0.02), (c.width,))
        self.transform = Dense(c.width, name="transform")
        self.transform_norm = nn.LayerNorm(name="transform_norm")

    def items(self, features: jax.Array | None) -> jax.Array:
        """float32[N + 1, D + 1], the vectors of all items, see `ItemVectors`, and their biases."""
        return jnp.concatenate([self.vectors(features), self.bias[:, None]], axis=1)

    def states(
        self,
        items: jax.Array,
        sequence: jax.Array,
        hidden: jax.Array,
        seeds: jax.Array | None = None,
    ) -> jax.Array:
        """What stands at each place of a sequence, as far as the others tell.

        Args:
          items: float32[N + 1, D + 1], of `items`.
          sequence: int32[B, T + 1], right padded; what is hidden may be anything but 0.
          hidden: bool[B, T + 1], places that are masked.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T + 1, D + 1]; the score of item i is <state, items[i]>.
        """
        seen = items[jnp.where(hidden, 0, sequence), :-1]
        x = jnp.where(hidden[..., None], self.mask_vector, seen) * self.config.width**0.5
        x = self.trunk(x, seeds, sequence > 0)
        x = self.transform_norm(jax.nn.gelu(self.transform(x)))
        return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1))], axis=-1)

    def last(self, items: jax.Array, history: jax.Array) -> jax.Array:
        """float32[B, D + 1], the state of a mask behind each history int32[B, T]."""
        sequence, hidden = append(history, jnp.ones(len(history), history.dtype))
        return last_of(self.states(items, sequence, hidden), sequence > 0)

    def __call__(
        self, features: jax.Array | None, history: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(item vectors, states with nothing masked): touches every parameter, for `init`."""
        items = self.items(features)
        hidden = jnp.zeros(history.shape, bool).at[:, -1].set(True)
        return items, self.states(items, history, hidden, seeds)


def choose_hidden(
    sequence: jax.Array, end: jax.Array, seeds: jax.Array, masked: float, last_only: float
) -> jax.Array:
    """Which places of a training sequence are masked (the cloze task); always the last or more.

    Args:
      sequence: int32[B, T + 1], right padded.
      end: bool[B, T + 1], True at the last item.
      seeds: uint32[B], of the example and the step.
      masked: share of the places.
      last_only: share of the sequences where only the last is masked.

    Returns:
      bool[B, T + 1].
    """
    some = below(example_bits(seeds, sequence.shape[1:], 3), masked) & (sequence > 0)
    alone = below(example_bits(seeds, (1,), 4), last_only) | ~some.any(axis=1, keepdims=True)
    return jnp.where(alone, end, some)
