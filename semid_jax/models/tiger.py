"""TIGER (Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023).

A T5 (Raffel et al., JMLR 2020) reads the codes of a history and writes the codes of the next item:
root-mean-square norms before every layer, no biases, relative positions by a bias on the attention
logits that all layers of a stack share, ReLU in the feed-forward layers, no scaling of the logits
(the initial values make up for it), embeddings shared by encoder, decoder and output. Code j is
classified among the K values of level j. No user token: replications found it useless.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.dropout import dropout
from semid_jax.models.linear import Dense, multiply_each
from semid_jax.models.trunk import KeyValue

BUCKETS, FARTHEST = 32, 128  # of relative positions
NEVER = -1e9


@dataclasses.dataclass(frozen=True)
class TigerConfig:
    """Sizes of TIGER.

    Attributes:
      width: D.
      encoder_layers: blocks that read.
      decoder_layers: blocks that write.
      heads: attention heads.
      head_width: e, of one head.
      feed_forward: width inside a feed-forward layer.
      dropout: on embeddings, attention weights, inside feed-forward layers and on what every
        layer adds.
      constrained: see `Gpt2Config`.
    """

    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    head_width: int = 32
    feed_forward: int = 512
    dropout: float = 0.1
    constrained: bool = False


def distance_bucket(distance: jax.Array, both_sides: bool) -> jax.Array:
    """Which of BUCKETS a relative position falls in: exact when near, logarithmic when far.

    Args:
      distance: int32[...], key position minus query position.
      both_sides: keys may follow the query; if not, distances above 0 count as 0.

    Returns:
      int32[...].
    """
    count = BUCKETS // 2 if both_sides else BUCKETS
    start = jnp.where(distance > 0, count, 0) if both_sides else 0
    far = jnp.abs(distance) if both_sides else jnp.maximum(-distance, 0)
    exact = count // 2
    ratio = jnp.log(jnp.maximum(far, 1) / exact) / math.log(FARTHEST / exact)
    large = jnp.minimum(exact + (ratio * (count - exact)).astype(jnp.int32), count - 1)
    return start + jnp.where(far < exact, far, large)


class Attention(nn.Module):
    """T5's attention: projections without bias, logits without scale."""

    config: TigerConfig
    site: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        inner, normal = c.heads * c.head_width, nn.initializers.normal
        self.norm = nn.RMSNorm()
        self.q = Dense(inner, use_bias=False, kernel_init=normal((c.width * c.head_width) ** -0.5))
        self.k = Dense(inner, use_bias=False, kernel_init=normal(c.width**-0.5))
        self.v = Dense(inner, use_bias=False, kernel_init=normal(c.width**-0.5))
        self.o = Dense(c.width, use_bias=False, kernel_init=normal(inner**-0.5))

    def key_value(self, x: jax.Array) -> KeyValue:
        """float[..., S, D] to keys and values, [..., S, H, e] each."""
        return self._split(self.k(x)), self._split(self.v(x))

    def query(self, x: jax.Array) -> jax.Array:
        """float[..., D] to float[..., H, e]."""
        return self._split(self.q(x))

    def __call__(
        self, q: jax.Array, key_value: KeyValue, bias: jax.Array, seeds: jax.Array | None
    ) -> jax.Array:
        """float[B, T, H, e] over [B, S, H, e] with logits' bias [..., H, T, S]: float[B, T, D]."""
        weights = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, key_value[0]) + bias, axis=-1)
        weights = dropout(weights, seeds, self.config.dropout, self.site)
        y = jnp.einsum("bhts,bshe->bthe", weights, key_value[1])
        return self.o(y.reshape(*y.shape[:-2], -1))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.config.heads, self.config.head_width)


class FeedForward(nn.Module):
    """T5's feed-forward layer, norm included."""

    config: TigerConfig
    site: int

    @nn.compact
    def __call__(self, x: jax.Array, seeds: jax.Array | None) -> jax.Array:
        """float[B, ..., D] to float[B, ..., D]."""
        c, normal = self.config, nn.initializers.normal
        y = nn.RMSNorm(name="norm")(x)
        up = Dense(c.feed_forward, use_bias=False, kernel_init=normal(c.width**-0.5), name="up")
        y = dropout(jax.nn.relu(up(y)), seeds, c.dropout, self.site)
        init = normal(c.feed_forward**-0.5)
        return Dense(c.width, use_bias=False, kernel_init=init, name="down")(y)


class Tiger(nn.Module):
    """Encoder, decoder and code embeddings."""

    config: TigerConfig
    levels: int
    codewords: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c, normal = self.config, nn.initializers.normal
        self.codes = self.param("codes", normal(1.0), (self.levels, self.codewords, c.width))
        self.begin = self.param("begin", normal(1.0), (c.width,))
        self.encoder_bias = self.param("encoder_bias", normal(0.1), (BUCKETS, c.heads))
        self.decoder_bias = self.param("decoder_bias", normal(0.1), (BUCKETS, c.heads))
        below = range(c.encoder_layers)
        self.read = [Attention(c, 16 * i + 8, name=f"read{i}") for i in below]
        self.read_up = [FeedForward(c, 16 * i + 9, name=f"read_up{i}") for i in below]
        above = range(c.decoder_layers)
        self.write = [Attention(c, 16 * i + 136, name=f"write{i}") for i in above]
        self.cross = [Attention(c, 16 * i + 137, name=f"cross{i}") for i in above]
        self.write_up = [FeedForward(c, 16 * i + 138, name=f"write_up{i}") for i in above]
        self.encoder_norm, self.decoder_norm = nn.RMSNorm(), nn.RMSNorm()

    def encode(self, codes: jax.Array, mask: jax.Array, seeds: jax.Array | None) -> jax.Array:
        """What the encoder makes of histories.

        Args:
          codes: uint8[B, T, L], right padded.
          mask: bool[B, T].
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T * L, D].
        """
        c = self.config
        B, T, L = codes.shape
        x = self.codes[jnp.arange(L), codes.astype(jnp.int32)].reshape(B, T * L, -1)
        x = dropout(x, seeds, c.dropout, 1)
        place = jnp.arange(T * L)
        bias = self.encoder_bias[distance_bucket(place - place[:, None], both_sides=True)]
        bias = bias.transpose(2, 0, 1) + self._hides(mask)
        for site, (attention, up) in enumerate(zip(self.read, self.read_up, strict=True)):
            y = attention.norm(x)
            y = attention(attention.query(y), attention.key_value(y), bias, seeds)
            x = x + dropout(y, seeds, c.dropout, 16 * site + 10)
            x = x + dropout(up(x, seeds), seeds, c.dropout, 16 * site + 11)
        return dropout(self.encoder_norm(x), seeds, c.dropout, 2)

    def __call__(
        self, codes: jax.Array, mask: jax.Array, target: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """Logits of the codes of one next item per history, each given those before it.

        Args:
          codes: uint8[B, T, L], right padded.
          mask: bool[B, T].
          target: uint8[B, L].
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, L, K].
        """
        c, L = self.config, self.levels
        memory, hides = self.encode(codes, mask, seeds), self._hides(mask)
        written = self.codes[jnp.arange(L - 1), target[:, :-1].astype(jnp.int32)]
        begin = jnp.broadcast_to(self.begin, (len(codes), 1, c.width))
        x = dropout(jnp.concatenate([begin, written], axis=1), seeds, c.dropout, 3)
        place = jnp.arange(L)
        bias = self.decoder_bias[distance_bucket(place - place[:, None], both_sides=False)]
        bias = bias.transpose(2, 0, 1) + jnp.where(place <= place[:, None], 0.0, NEVER)
        for i in range(c.decoder_layers):
            own, cross = self.write[i], self.cross[i]
            y = own.norm(x)
            y = own(own.query(y), own.key_value(y), bias, seeds)
            x = x + dropout(y, seeds, c.dropout, 16 * i + 139)
            y = cross(cross.query(cross.norm(x)), cross.key_value(memory), hides, seeds)
            x = x + dropout(y, seeds, c.dropout, 16 * i + 140)
            x = x + dropout(self.write_up[i](x, seeds), seeds, c.dropout, 16 * i + 141)
        x = dropout(self.decoder_norm(x), seeds, c.dropout, 4)
        return multiply_each(x, self.codes) * c.width**-0.5

    def start(self, codes: jax.Array, mask: jax.Array, beam: int) -> tuple[jax.Array, Any, Any]:
        """Reads histories, ready to generate; arguments and result as of `Gpt2.start`."""
        c = self.config
        B, _, L = codes.shape
        memory = self.encode(codes, mask, None)
        shared = [cross.key_value(memory) for cross in self.cross], self._hides(mask)
        blank = jnp.zeros((B, 1, L, c.heads, c.head_width))
        own = [(blank, blank) for _ in range(c.decoder_layers)]
        begin = jnp.broadcast_to(self.begin, (B, 1, c.width))
        logits, own = self._extend(shared, own, begin, 0)
        return logits[:, 0], shared, jax.tree.map(lambda a: jnp.repeat(a, beam, axis=1), own)

    def step(self, shared: Any, own: Any, code: jax.Array, level: int) -> tuple[jax.Array, Any]:
        """One code further; arguments and result as of `Gpt2.step`."""
        return self._extend(shared, own, self.codes[level][code], level + 1)

    def _extend(self, shared: Any, own: Any, x: jax.Array, at: int) -> tuple[jax.Array, Any]:
        """Logits of level `at` from the vectors float[B, b, D] that enter there."""
        key_values, hides = shared
        bias = self.decoder_bias[distance_bucket(jnp.arange(at + 1) - at, both_sides=False)].T
        filled = []
        for i, (k, v) in enumerate(own):
            attention, cross = self.write[i], self.cross[i]
            y = attention.norm(x)
            new = attention.key_value(y)
            k, v = k.at[:, :, at].set(new[0]), v.at[:, :, at].set(new[1])
            filled.append((k, v))
            logits = jnp.einsum("bkhe,bklhe->bkhl", attention.query(y), k[:, :, : at + 1]) + bias
            y = jnp.einsum("bkhl,bklhe->bkhe", jax.nn.softmax(logits, axis=-1), v[:, :, : at + 1])
            x = x + attention.o(y.reshape(*x.shape[:-1], -1))
            x = x + cross(cross.query(cross.norm(x)), key_values[i], hides, None)
            x = x + self.write_up[i](x, None)
        x = self.decoder_norm(x)
        return x @ self.codes[at].T * self.config.width**-0.5, filled

    def _hides(self, mask: jax.Array) -> jax.Array:
        """bool[B, T] to a bias float[B, 1, 1, T * L] that hides padding."""
        seen = jnp.repeat(mask, self.levels, axis=1)
        return jnp.where(seen, 0.0, NEVER)[:, None, None, :]
