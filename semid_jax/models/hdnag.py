"""HDNAG: a user's state to the codes of the next item, coarse first, then all fine digits at once.

Design part 5. An item with semantic ID (c, f_1 .. f_L) scores

    S1(s, i) = w a_c(s) + sum_j <h_j(s), E[j, f_j]> / tau_j + b_i,   b_i = sum_j r[c, j, f_j],

an inner product of the query [w W s ; h_1 / tau_1 .. h_L / tau_L ; 1] with the item vector
[e_c ; E[1, f_1] .. E[L, f_L] ; b_i]. Everything that follows a trunk state is a pure function of
the parameters; only the trunk and the input projection are layers.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.encoders import unit
from semid_jax.models.trunk import Trunk


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the generator.

    Attributes:
      width: D, of the trunk.
      layers: transformer blocks.
      heads: attention heads; divides width.
      digit_width: d, width of a fine code embedding.
      condition_rank: rank of the additive condition r.
      dropout: on the input, the attention weights and the residual branches.
      temperature: start of tau.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    digit_width: int = 16
    condition_rank: int = 16
    dropout: float = 0.2
    temperature: float = 0.2


@struct.dataclass
class CodeTables:
    """The embeddings that an ID's codes look up.

    Attributes:
      coarse: float32[C, D], e_c.
      fine: float32[L, K, d], unit vectors E[j, v].
      condition: float32[C, L, d], G_j e_c, so that r[c, j, v] = <condition[c, j], E[j, v]>.
    """

    coarse: jax.Array
    fine: jax.Array
    condition: jax.Array


class Generator(nn.Module):
    """Trunk, input projection, heads and code embeddings."""

    config: GeneratorConfig
    cells: int
    digits: int
    codewords: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        normal = nn.initializers.normal
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        self.item_in = nn.Dense(c.width, name="item_in")
        self.coarse_codes = self.param("coarse_codes", normal(0.02), (self.cells, c.width))
        self.fine_codes = self.param(
            "fine_codes", normal(1.0), (self.digits, self.codewords, c.digit_width)
        )
        self.condition_down = self.param(
            "condition_down", normal(c.width**-0.5), (c.width, c.condition_rank)
        )
        self.condition_up = self.param(
            "condition_up", nn.initializers.zeros, (c.condition_rank, self.digits, c.digit_width)
        )
        self.coarse_head = nn.Dense(c.width, name="coarse_head")
        self.fine_head = nn.Dense(self.digits * c.digit_width, name="fine_head")
        self.coarse_weight = self.param("coarse_weight", nn.initializers.ones, ())
        self.log_temperature = self.param(
            "log_temperature", nn.initializers.constant(jnp.log(c.temperature)), (self.digits,)
        )

    def tables(self) -> CodeTables:
        """The code embeddings as every score uses them."""
        down = self.coarse_codes @ self.condition_down
        return CodeTables(
            coarse=self.coarse_codes,
            fine=unit(self.fine_codes),
            condition=jnp.einsum("cr,rld->cld", down, self.condition_up),
        )

    def states(
        self, coarse: jax.Array, fine: jax.Array, mask: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """Reads a history's semantic IDs.

        Args:
          coarse: int32[B, T], the read side's coarse codes.
          fine: uint8[B, T, L].
          mask: bool[B, T], False on right padding.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, D], the state after each item.
        """
        tables = self.tables()
        digit = jnp.arange(self.digits)
        codes = tables.fine[digit, fine.astype(jnp.int32)]
        parts = [tables.coarse[coarse], codes.reshape(*fine.shape[:-1], -1)]
        x = self.item_in(jnp.concatenate(parts, axis=-1)) * mask[..., None]
        return self.trunk(x, seeds)

    def coarse_query(self, states: jax.Array) -> jax.Array:
        """W s: float32[..., D] to float32[..., D]."""
        return self.coarse_head(states)

    def fine_query(self, states: jax.Array) -> jax.Array:
        """h_j(s) / tau_j: float32[..., D] to float32[..., L, d]."""
        h = self.fine_head(states).reshape(*states.shape[:-1], self.digits, -1)
        return unit(h) * jnp.exp(-self.log_temperature)[:, None]

    def __call__(
        self, coarse: jax.Array, fine: jax.Array, mask: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array, CodeTables]:
        """States' queries and the tables they meet.

        Returns:
          (W s float32[B, T, D], h / tau float32[B, T, L, d], w float32[], tables).
        """
        states = self.states(coarse, fine, mask, seeds)
        return self.coarse_query(states), self.fine_query(states), self.coarse_weight, self.tables()


def query_vector(coarse_query: jax.Array, fine_query: jax.Array, weight: jax.Array) -> jax.Array:
    """q = [w W s ; h_1 / tau_1 .. h_L / tau_L ; 1].

    Args:
      coarse_query: float32[..., D].
      fine_query: float32[..., L, d].
      weight: w, float32[].

    Returns:
      float32[..., D + L d + 1].
    """
    lead = coarse_query.shape[:-1]
    fine = fine_query.reshape(*lead, -1)
    return jnp.concatenate([weight * coarse_query, fine, jnp.ones((*lead, 1))], axis=-1)


def item_bias(tables: CodeTables, coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """b_i = sum_j r[c, j, f_j], the additive condition of an ID.

    Args:
      tables: code embeddings.
      coarse: int32[...].
      fine: uint8[..., L].

    Returns:
      float32[...].
    """
    return item_vector(tables, coarse, fine)[..., -1]


def item_vector(tables: CodeTables, coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """[e_c ; E[1, f_1] .. E[L, f_L] ; b_i].

    Args:
      tables: code embeddings.
      coarse: int32[...].
      fine: uint8[..., L].

    Returns:
      float32[..., D + L d + 1].
    """
    digit = jnp.arange(fine.shape[-1])
    codes = tables.fine[digit, fine.astype(jnp.int32)]
    bias = jnp.sum(tables.condition[coarse] * codes, axis=(-2, -1))
    flat = codes.reshape(*coarse.shape, -1)
    return jnp.concatenate([tables.coarse[coarse], flat, bias[..., None]], axis=-1)
