"""The transformer over items: a user's history in, one state per position out."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.dropout import dropout


class Block(nn.Module):
    """Pre-norm self-attention and a feed-forward layer."""

    width: int
    heads: int
    dropout: float
    site: int

    @nn.compact
    def __call__(self, x: jax.Array, seeds: jax.Array | None, sees: jax.Array) -> jax.Array:
        """Maps float[B, T, D] to float[B, T, D]; `sees` bool[.., T, T] says which see which."""
        B, T, D = x.shape
        y = nn.LayerNorm(name="attention_norm")(x)
        qkv = nn.Dense(3 * D, use_bias=False, name="qkv")(y)
        q, k, v = jnp.split(qkv.reshape(B, T, 3 * self.heads, D // self.heads), 3, axis=2)
        logits = jnp.einsum("bthe,bshe->bhts", q, k) * (D // self.heads) ** -0.5
        weights = jax.nn.softmax(jnp.where(sees, logits, -1e9), axis=-1)
        weights = dropout(weights, seeds, self.dropout, self.site)
        y = jnp.einsum("bhts,bshe->bthe", weights, v).reshape(B, T, D)
        y = nn.Dense(D, use_bias=False, name="out")(y)
        x = x + dropout(y, seeds, self.dropout, self.site + 1)
        y = nn.LayerNorm(name="feed_forward_norm")(x)
        y = nn.Dense(4 * D, name="up")(y)
        y = nn.Dense(D, name="down")(jax.nn.gelu(y))
        return x + dropout(y, seeds, self.dropout, self.site + 2)


class Trunk(nn.Module):
    """Item vectors plus positions through a stack of blocks (SASRec, Kang and McAuley 2018)."""

    width: int
    layers: int
    heads: int
    max_length: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: jax.Array, seeds: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        """States of every position.

        Args:
          x: float[B, T, D] item vectors, right padded; T at most `max_length`.
          seeds: uint32[B] for dropout, None in evaluation.
          mask: None for a causal trunk; bool[B, T], False on padding, for one that sees all.

        Returns:
          float[B, T, D]; causal, row t depends on items 0..t only, so that padding on the right
          needs no mask.
        """
        T = x.shape[1]
        sees = jnp.tril(jnp.ones((T, T), bool)) if mask is None else mask[:, None, None, :]
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.max_length, self.width)
        )
        x = x + positions[: x.shape[1]]
        x = dropout(nn.LayerNorm(name="input_norm")(x), seeds, self.dropout, 1)
        for layer in range(self.layers):
            block = Block(
                self.width, self.heads, self.dropout, 8 * (layer + 1), name=f"block{layer}"
            )
            x = block(x, seeds, sees)
        return nn.LayerNorm(name="output_norm")(x)


def last_of(states: jax.Array, mask: jax.Array) -> jax.Array:
    """The state at the last item of each history.

    Args:
      states: float[B, T, D].
      mask: bool[B, T], False on right padding.

    Returns:
      float[B, D].
    """
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
    return states[jnp.arange(len(last)), last]
