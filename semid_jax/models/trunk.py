"""The transformer over a history: one vector per place in, one state per place out."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.attention import attend
from semid_jax.models.dropout import dropout
from semid_jax.models.linear import Dense, multiply
from semid_jax.models.rows import Rows

# Keys and values of one layer, float[..., S, H, e] each.
KeyValue = tuple[jax.Array, jax.Array]


class Block(nn.Module):
    """Pre-norm self-attention and a feed-forward layer."""

    width: int
    heads: int
    dropout: float
    site: int

    def setup(self) -> None:
        """Creates the parameters."""
        D = self.width
        self.attention_norm = nn.LayerNorm()
        self.qkv = Dense(3 * D, use_bias=False)
        self.out = Dense(D, use_bias=False)
        self.feed_forward_norm = nn.LayerNorm()
        self.up = Dense(4 * D)
        self.down = Dense(D)

    def __call__(self, x: jax.Array, seeds: jax.Array | None, sees: jax.Array) -> jax.Array:
        """Maps float[B, T, D] to float[B, T, D]; `sees` bool[.., T, T] says which see which."""
        q, k, v = self._heads(x)
        logits = jnp.einsum("bthe,bshe->bhts", q, k)
        weights = jax.nn.softmax(jnp.where(sees, logits, -1e9), axis=-1)
        weights = dropout(weights, seeds, self.dropout, self.site)
        y = self.out(jnp.einsum("bhts,bshe->bthe", weights, v).reshape(x.shape))
        x = x + dropout(y, seeds, self.dropout, self.site + 1)
        y = self._feed_forward(x)
        return x + dropout(y, seeds, self.dropout, self.site + 2)

    def of_rows(self, x: jax.Array, rows: Rows) -> tuple[jax.Array, KeyValue]:
        """A causal block in evaluation: float[n, D] to float[n, D], and its keys and values."""
        q, k, v = self._heads(x)
        x = x + self.out(attend(q, k, v, rows).reshape(x.shape))
        return x + self._feed_forward(x), (rows.unpack(k), rows.unpack(v))

    def last(self, x: jax.Array, rows: Rows) -> jax.Array:
        """Of a causal block in evaluation, the last item of each history: x float[n, D].

        Returns:
          float[B, D]; of the other places no query, key or value is made, nor the feed-forward.
        """
        normed = self.attention_norm(x)
        seen = rows.unpack(normed)
        to_q, to_k, to_v = jnp.split(self.qkv.variables["params"]["kernel"], 3, axis=1)
        # A query of each head, zero where the others' parts are: [H, D]. q (W_k x) = (q W_k) x and
        # sum a (W_v x) = W_v (sum a x): products for a row's heads in place of all its places.
        head = jnp.repeat(jnp.eye(self.heads), self.width // self.heads, axis=1)
        q = (rows.pick(normed) @ to_q)[:, None] * head * (self.width // self.heads) ** -0.5
        logits = jnp.einsum("bhd,bsd->bhs", multiply(q, to_k.T), seen)
        weights = jax.nn.softmax(jnp.where(rows.mask[:, None], logits, -1e9), axis=-1)
        y = multiply(jnp.einsum("bhs,bsd->bhd", weights, seen), to_v)
        state = rows.pick(x) + self.out(jnp.sum(y * head, axis=1))
        return state + self._feed_forward(state)

    def read(self, x: jax.Array, rows: Rows) -> tuple[jax.Array, KeyValue]:
        """`last`, and the keys and values of all places, for `extend`."""
        D, e = self.width, self.width // self.heads
        seen = self.attention_norm(x)
        kernel = self.qkv.variables["params"]["kernel"]
        q = multiply(rows.pick(seen), kernel[:, :D]).reshape(-1, self.heads, e) * e**-0.5
        both = multiply(seen, kernel[:, D:]).reshape(-1, 2 * self.heads, e)
        k, v = jnp.split(rows.unpack(both), 2, axis=2)
        logits = jnp.einsum("bhe,bshe->bhs", q, k)
        logits = jnp.where(rows.mask[:, None], logits, -1e9)
        y = jnp.einsum("bhs,bshe->bhe", jax.nn.softmax(logits, axis=-1), v)
        state = rows.pick(x) + self.out(y.reshape(-1, D))
        return state + self._feed_forward(state), (k, v)

    def extend(
        self, x: jax.Array, past: KeyValue, sees: jax.Array, own: KeyValue, at: int
    ) -> tuple[jax.Array, KeyValue]:
        """One more place for each of b continuations of a past that they share.

        Args:
          x: float[B, b, D].
          past: of the shared places, [B, S, H, e].
          sees: bool[B, S], False on the past's padding.
          own: of the places that are each continuation's own, [B, b, L, H, e].
          at: how many of the L are filled; this place is the next.

        Returns:
          float[B, b, D], and `own` with this place in it.
        """
        q, k, v = self._heads(x)
        own = own[0].at[:, :, at].set(k), own[1].at[:, :, at].set(v)
        before = jnp.einsum("bkhe,bshe->bkhs", q, past[0])
        before = jnp.where(sees[:, None, None], before, -1e9)
        after = jnp.einsum("bkhe,bklhe->bkhl", q, own[0][:, :, : at + 1])
        weights = jax.nn.softmax(jnp.concatenate([before, after], axis=-1), axis=-1)
        S = before.shape[-1]
        y = jnp.einsum("bkhs,bshe->bkhe", weights[..., :S], past[1])
        y += jnp.einsum("bkhl,bklhe->bkhe", weights[..., S:], own[1][:, :, : at + 1])
        x = x + self.out(y.reshape(x.shape))
        return x + self._feed_forward(x), own

    def _heads(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, scaled, keys and values: float[..., H, e] each."""
        e = self.width // self.heads
        qkv = self.qkv(self.attention_norm(x)).reshape(*x.shape[:-1], 3 * self.heads, e)
        q, k, v = jnp.split(qkv, 3, axis=-2)
        return q * e**-0.5, k, v

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(self.feed_forward_norm(x))))


class Trunk(nn.Module):
    """Vectors plus positions through a stack of blocks (SASRec, Kang and McAuley 2018)."""

    width: int
    layers: int
    heads: int
    max_length: int
    dropout: float

    def setup(self) -> None:
        """Creates the parameters."""
        self.positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.max_length, self.width)
        )
        self.input_norm = nn.LayerNorm()
        self.blocks = [
            Block(self.width, self.heads, self.dropout, 8 * (layer + 1), name=f"block{layer}")
            for layer in range(self.layers)
        ]
        self.output_norm = nn.LayerNorm()

    def __call__(
        self, x: jax.Array, seeds: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        """States of every place.

        Args:
          x: float[B, T, D], right padded; T at most `max_length`.
          seeds: uint32[B] for dropout, None in evaluation.
          mask: None for a causal trunk; bool[B, T], False on padding, for one that sees all.

        Returns:
          float[B, T, D]; causal, row t depends on places 0..t only, so that padding on the right
          needs no mask.
        """
        T = x.shape[1]
        sees = jnp.tril(jnp.ones((T, T), bool)) if mask is None else mask[:, None, None, :]
        x = dropout(self.input_norm(x + self.positions[:T]), seeds, self.dropout, 1)
        for block in self.blocks:
            x = block(x, seeds, sees)
        return self.output_norm(x)

    def last(self, x: jax.Array, rows: Rows) -> jax.Array:
        """The state of a causal trunk after the last item of each history, in evaluation.

        Args:
          x: float[n, D], of the places that are rows.
          rows: which those are.

        Returns:
          float[B, D], row b of `__call__` at its last item.
        """
        x, _ = self._below(x, rows)
        return self.output_norm(self.blocks[-1].last(x, rows))

    def read(self, x: jax.Array, rows: Rows) -> tuple[jax.Array, list[KeyValue]]:
        """`last`, and every layer's keys and values, [B, T, H, e], for `extend`."""
        x, cache = self._below(x, rows)
        state, key_value = self.blocks[-1].read(x, rows)
        return self.output_norm(state), [*cache, key_value]

    def _below(self, x: jax.Array, rows: Rows) -> tuple[jax.Array, list[KeyValue]]:
        """What goes into a causal trunk's last block, in evaluation, and the others' caches."""
        cache = []
        x = self.input_norm(x + self.positions[rows.times])
        for block in self.blocks[:-1]:
            x, key_value = block.of_rows(x, rows)
            cache.append(key_value)
        return x, cache

    def extend(
        self,
        x: jax.Array,
        place: jax.Array,
        past: list[KeyValue],
        sees: jax.Array,
        own: list[KeyValue],
        at: int,
    ) -> tuple[jax.Array, list[KeyValue]]:
        """States of one more place for each of b continuations of a past that they share.

        Args:
          x: float[B, b, D].
          place: int32[B], its position.
          past: of `read`.
          sees: bool[B, S], False on the past's padding.
          own: per layer, keys and values of the continuations' own places, [B, b, L, H, e].
          at: how many of the L are filled.

        Returns:
          float[B, b, D], and `own` with this place in it.
        """
        x = self.input_norm(x + self.positions[place][:, None])
        filled = []
        for block, shared, mine in zip(self.blocks, past, own, strict=True):
            x, mine = block.extend(x, shared, sees, mine, at)
            filled.append(mine)
        return self.output_norm(x), filled


def bytes_touched(places: int, width: int, heads: int) -> int:
    """Of a block, for a user: attention weights, and the widest layer's inputs and outputs.

    Args:
      places: T.
      width: D.
      heads: H.
    """
    return 4 * places * (heads * places + 8 * width)


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
