"""One dense vector per item, shared between a sequence model's input and its output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.trunk import last_of


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


class NextItemModel(nn.Module):
    """A model whose state after each item scores the next one by <state, items[i]>.

    A kind of it makes `vectors`, an ItemVectors, in its setup and says what its `states` are.
    """

    config: Any
    n_items: int
    max_length: int

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
          float32[B, T, D].
        """
        raise NotImplementedError

    def last(self, items: jax.Array, history: jax.Array) -> jax.Array:
        """float32[B, D], the state after the last item of each history int32[B, T]."""
        return last_of(self.states(items, history), history > 0)

    def __call__(
        self, features: jax.Array | None, history: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(item vectors, states)."""
        items = self.items(features)
        return items, self.states(items, history, seeds)
