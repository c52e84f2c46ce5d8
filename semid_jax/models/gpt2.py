"""GPT2 over flattened semantic IDs: the autoregressive reference.

A history of items is the sequence of their L codes each; a causal transformer predicts every code
from all before it, all positions in one pass. Code j of an item is classified among the K values
of level j, so no probability goes to values of other levels. What the transformer reads at code j
is that code's vector, or with `prefixes` the sum of the item's vectors up to it, as RQ-Transformer
does (Lee et al., CVPR 2022): residual codes are summands, and no layer has to gather them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.linear import multiply_each
from semid_jax.models.rows import Rows, every_place
from semid_jax.models.trunk import Trunk


@dataclasses.dataclass(frozen=True)
class Gpt2Config:
    """Sizes of GPT2.

    Attributes:
      width: D.
      layers: transformer blocks.
      heads: attention heads; divides width.
      dropout: on the input, the attention weights and the residual branches.
      constrained: a code's probability is among the codes that items have after the same codes, in
        training as in the search; else among all of its level.
      prefixes: the input at a code is the sum of its item's vectors up to it, over the square root
        of their number; else its own vector.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    constrained: bool = True
    prefixes: bool = True


class Gpt2(nn.Module):
    """Code embeddings shared by input and output, and a causal trunk over codes."""

    config: Gpt2Config
    levels: int
    codewords: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        places = (self.max_length + 1) * self.levels
        self.trunk = Trunk(c.width, c.layers, c.heads, places, c.dropout)
        self.codes = self.param(
            "codes", nn.initializers.normal(0.02), (self.levels, self.codewords, c.width)
        )

    def embed(self, codes: jax.Array) -> jax.Array:
        """uint8[B, T, L] codes of items to float32[B, T * L, D]."""
        level = jnp.arange(self.levels)
        vectors = self.codes[level, codes.astype(jnp.int32)]
        if self.config.prefixes:
            vectors = jnp.cumsum(vectors, axis=2) * _sum_scale(level)[:, None]
        B, T = codes.shape[:2]
        return vectors.reshape(B, T * self.levels, -1) * self.config.width**0.5

    def __call__(self, codes: jax.Array, seeds: jax.Array | None = None) -> jax.Array:
        """Logits of every code of every item but the first.

        Args:
          codes: uint8[B, T + 1, L], right padded.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, L, K], of the codes of items 1 .. T, each given all codes before it.
        """
        B, rows, L = codes.shape
        states = self.trunk(self.embed(codes), seeds)[:, L - 1 : -1]
        return multiply_each(states.reshape(B, rows - 1, L, -1), self.codes)

    def start(
        self, codes: jax.Array, mask: jax.Array, beam: int, rows: Rows | None = None
    ) -> tuple[jax.Array, Any, Any]:
        """Reads histories, ready to generate.

        Args:
          codes: uint8[B, T, L], right padded.
          mask: bool[B, T].
          beam: b, continuations of each.
          rows: the places that are computed; all of them if not given.

        Returns:
          Logits float32[B, K] of the first code; what all continuations of a user share; what each
          has for itself, arrays [B, b, ...].
        """
        B, _, L = codes.shape
        rows = every_place(mask) if rows is None else rows
        sees = jnp.repeat(mask, L, axis=1)
        last, past = self.trunk.read(self.embed(rows.pack(codes)[None])[0], rows.spread(L))
        end = jnp.sum(sees, axis=1)
        heads = (self.config.heads, self.config.width // self.config.heads)
        blank = jnp.zeros((B, beam, L, *heads))
        own = [(blank, blank) for _ in range(self.config.layers)]
        before = jnp.zeros((B, beam, self.config.width if self.config.prefixes else 0))
        return last @ self.codes[0].T, (past, sees, end), (own, before)

    def step(self, shared: Any, own: Any, code: jax.Array, level: int) -> tuple[jax.Array, Any]:
        """One code further.

        Args:
          shared: of `start`.
          own: of `start` or of the step before.
          code: int32[B, b], the codes of this level.
          level: 0 .. L - 2.

        Returns:
          Logits float32[B, b, K] of the next level, and `own` with this level in it.
        """
        past, sees, end = shared
        own, before = own
        x = self.codes[level][code]
        if self.config.prefixes:
            before = before + x
            x = before * _sum_scale(level)
        x = x * self.config.width**0.5
        state, own = self.trunk.extend(x, end + level, past, sees, own, level)
        return state @ self.codes[level + 1].T, (own, before)


def _sum_scale(level: jax.Array | int) -> jax.Array:
    """What keeps the length of a sum of the independent vectors of levels 0 .. `level`."""
    return (1.0 + jnp.asarray(level)) ** -0.5


def code_loss(
    logits: jax.Array, codes: jax.Array, weight: jax.Array, following: jax.Array | None = None
) -> jax.Array:
    """Mean over levels of the cross-entropy of the true codes.

    Args:
      logits: float32[..., L, K].
      codes: uint8[..., L].
      weight: float32[...].
      following: uint32[..., L, W], the codes that can be, see `trie.next_codes`; all if not given.

    Returns:
      float32[], sum over items.
    """
    if following is not None:
        value = jnp.arange(logits.shape[-1], dtype=jnp.uint32)
        bits = jnp.right_shift(following[..., value // 32], value % 32) & 1
        logits = jnp.where(bits == 1, logits, -jnp.inf)
    own = jnp.take_along_axis(logits, codes[..., None].astype(jnp.int32), axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    return jnp.sum(jnp.mean(losses, axis=-1) * weight)
