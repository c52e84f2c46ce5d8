"""HDNAG: a user's state to the codes of the next item, coarse first, then all fine digits at once.

Design part 5. An item with semantic ID (c, f_1 .. f_L) scores

    S1(s, i) = w a_c(s) + sum_j <h_j(s), E[j, f_j]> / tau_j + b_i,   b_i = sum_j r[c, j, f_j],

an inner product of the query [w W s ; h_1 / tau_1 .. h_L / tau_L ; 1] with the item vector
[e_c ; E[1, f_1] .. E[L, f_L] ; b_i]. Everything that follows a trunk state is a pure function of
the parameters; only the trunk and the input projection are layers.

S2 adds a dense term for the best items under S1,

    S2(s, i) = S1(s, i) + <s, y_i>,   y_i = V z_i + u_i ,

z_i being the item as PMAT fuses it for the user and u_i, if asked for, a free vector per item,
which then also enters the trunk, so that S2 contains SASRec.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.encoders import unit
from semid_jax.models.trunk import Trunk
from semid_jax.types import InputError

DENSE = ("none", "content", "free")


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
      dense: the dense term of S2: "none" (S1 alone), "content" (V z) or "free" (V z + u).
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    digit_width: int = 16
    condition_rank: int = 16
    dropout: float = 0.2
    temperature: float = 0.2
    dense: str = "none"


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
    """Trunk, input projection, heads and code embeddings.

    Attributes:
      config: sizes.
      cells: C.
      digits: L.
      codewords: K.
      max_length: T.
      n_items: N.
      content: D_z, width of z.
    """

    config: GeneratorConfig
    cells: int
    digits: int
    codewords: int
    max_length: int
    n_items: int
    content: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        if c.dense not in DENSE:
            raise InputError(f"model.dense: {c.dense!r} is not one of {', '.join(DENSE)}")
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
        if self.has_dense:
            self.dense_in = self.param(
                "dense_in", nn.initializers.lecun_normal(), (self.content, c.width)
            )
        if self.has_free:
            self.free = self.param("free", normal(0.02), (self.n_items + 1, c.width))

    @property
    def has_dense(self) -> bool:
        """Whether there is an S2."""
        return self.config.dense != "none"

    @property
    def has_free(self) -> bool:
        """Whether items have free vectors."""
        return self.config.dense == "free"

    def tables(self) -> CodeTables:
        """The code embeddings as every score uses them."""
        down = self.coarse_codes @ self.condition_down
        return CodeTables(
            coarse=self.coarse_codes,
            fine=unit(self.fine_codes),
            condition=jnp.einsum("cr,rld->cld", down, self.condition_up),
        )

    def states(
        self, coarse: jax.Array, fine: jax.Array, items: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """Reads a history's semantic IDs.

        Args:
          coarse: int32[B, T], the read side's coarse codes.
          fine: uint8[B, T, L].
          items: int32[B, T], 0 on right padding; what the codes are codes of.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, D], the state after each item.
        """
        tables = self.tables()
        digit = jnp.arange(self.digits)
        codes = tables.fine[digit, fine.astype(jnp.int32)]
        parts = [tables.coarse[coarse], codes.reshape(*fine.shape[:-1], -1)]
        x = self.item_in(jnp.concatenate(parts, axis=-1))
        if self.has_free:
            x = x + self.config.width**0.5 * self.free[items]
        return self.trunk(x * (items > 0)[..., None], seeds)

    def coarse_query(self, states: jax.Array) -> jax.Array:
        """W s: float32[..., D] to float32[..., D]."""
        return self.coarse_head(states)

    def fine_query(self, states: jax.Array) -> jax.Array:
        """h_j(s) / tau_j: float32[..., D] to float32[..., L, d]."""
        h = self.fine_head(states).reshape(*states.shape[:-1], self.digits, -1)
        return unit(h) * jnp.exp(-self.log_temperature)[:, None]

    def dense_vectors(self, z: jax.Array, items: jax.Array) -> jax.Array:
        """y = V z + u: float32[..., D_z] and int32[...] to float32[..., D]."""
        y = z @ self.dense_in
        return y + self.free[items] if self.has_free else y

    def __call__(
        self, coarse: jax.Array, fine: jax.Array, items: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, CodeTables]:
        """States, their queries and the tables these meet.

        Returns:
          (s float32[B, T, D], W s float32[B, T, D], h / tau float32[B, T, L, d], w float32[],
          tables).
        """
        states = self.states(coarse, fine, items, seeds)
        queries = self.coarse_query(states), self.fine_query(states)
        return states, *queries, self.coarse_weight, self.tables()


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
