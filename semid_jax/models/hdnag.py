"""HDNAG: a user's state to the codes of the next item, coarse first, then all fine digits at once.

Design part 5. An item with semantic ID (c, f_1 .. f_L) scores

    S1(s, i) = <q_c(s), e_c> + sum_j <h_j(s), E[j, f_j]> + b_i,   b_i = sum_j r[c, j, f_j],

an inner product of the query [q_c ; h_1 .. h_L ; 1] with the item vector
[e_c ; E[1, f_1] .. E[L, f_L] ; b_i]. One matrix In reads codes and asks for them: an item's codes
enter the trunk as In^T [e_c ; E[1, f_1] .. E[L, f_L]], and [q_c ; h_1 .. h_L] = In s. So S1 is also
<s, In^T [..]> + b_i, one vector of width D per item, and a softmax over the whole catalogue costs
what it costs SASRec. The coarse logits are a_c(s) = <q_c(s), e_c> / w with a learned w.

S2 adds a dense term for the best items under S1,

    S2(s, i) = S1(s, i) + <s, y_i> + g <p, z_i> + rho [i in the history],   y_i = V z_i + u_i ,

z_i being the item as PMAT fuses it for the user, u_i, if asked for, a free vector per item, p the
user's interest, a fading mean of the z in the history, and rho what it takes for an item to be
chosen again. y then also enters the trunk, so that S2 contains SASRec with features. Of <p, z_i>
only g is learned: how like the last items an item is does not overfit, and says what no
collaborative signal says.
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
      dense: the dense term of S2: "none" (S1 alone), "content" (V z) or "free" (V z + u).
      fading: what an item counts in the interest p, relative to the next one.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    digit_width: int = 16
    condition_rank: int = 16
    dropout: float = 0.2
    dense: str = "none"
    fading: float = 0.7


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
    """Trunk, code embeddings and the matrix that reads codes and asks for them.

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
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        codes = c.width + self.digits * c.digit_width
        self.codes_in = self.param("codes_in", normal(0.02), (codes, c.width))
        self.coarse_codes = self.param("coarse_codes", normal(0.02), (self.cells, c.width))
        self.fine_codes = self.param(
            "fine_codes", normal(1.0), (self.digits, self.codewords, c.digit_width)
        )
        self.condition_down = self.param(
            "condition_down", normal(c.width**-0.5), (c.width, c.condition_rank)
        )
        self.condition_up = self.param(
            "condition_up", zeros, (c.condition_rank, self.digits, c.digit_width)
        )
        self.coarse_weight = self.param("coarse_weight", nn.initializers.ones, ())
        if self.has_dense:
            self.dense_in = self.param(
                "dense_in", nn.initializers.lecun_normal(), (self.content, c.width)
            )
            self.likeness = self.param("likeness", nn.initializers.ones, ())
            self.repeat = self.param("repeat", zeros, ())
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

    def code_vectors(self, coarse: jax.Array, fine: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Items as the state meets their codes: S1 = <s, vector> + bias.

        Args:
          coarse: int32[...].
          fine: uint8[..., L].

        Returns:
          (float32[..., D], In^T [e_c ; E[1, f_1] .. E[L, f_L]]; float32[...], b_i).
        """
        vectors = item_vector(self.tables(), coarse, fine)
        return vectors[..., :-1] @ self.codes_in, vectors[..., -1]

    def dense_vectors(self, z: jax.Array, items: jax.Array) -> jax.Array:
        """y = V z + u: float32[..., D_z] and int32[...] to float32[..., D]."""
        y = z @ self.dense_in
        return y + self.free[items] if self.has_free else y

    def states(
        self, vectors: jax.Array, mask: jax.Array, seeds: jax.Array | None = None
    ) -> jax.Array:
        """Reads a history.

        Args:
          vectors: float32[B, T, D], of its items: codes, and y where there is one.
          mask: bool[B, T], False on right padding.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, D], the state after each item.
        """
        vectors = self.config.width**0.5 * vectors * mask[..., None]
        states: jax.Array = self.trunk(vectors, seeds)
        return states

    def query(self, states: jax.Array) -> jax.Array:
        """In s, [q_c ; h_1 .. h_L]: float32[..., D] to float32[..., D + L d]."""
        return states @ self.codes_in.T

    def __call__(
        self, coarse: jax.Array, fine: jax.Array, z: jax.Array, items: jax.Array
    ) -> jax.Array:
        """Queries of a history, touching every parameter, for `init`."""
        vectors, bias = self.code_vectors(coarse, fine)
        if self.has_dense:
            vectors = vectors + self.dense_vectors(z, items)
        return self.query(self.states(vectors, items > 0)) + bias[..., None]


def interests(z: jax.Array, fading: float) -> jax.Array:
    """p, the fading mean of a history up to each of its items.

    Args:
      z: float32[B, T, D_z], right padded.
      fading: what an item counts, relative to the next one.

    Returns:
      float32[B, T, D_z]; those of padding are of no use.
    """
    places = jnp.arange(z.shape[1])
    lag = places[:, None] - places
    weight = jnp.where(lag >= 0, fading ** jnp.maximum(lag, 0), 0.0)
    return jnp.einsum("tk,bkd->btd", weight / jnp.sum(weight, axis=1, keepdims=True), z)


def query_vector(query: jax.Array) -> jax.Array:
    """[q_c ; h_1 .. h_L ; 1]: float32[..., D + L d] to float32[..., D + L d + 1]."""
    return jnp.concatenate([query, jnp.ones((*query.shape[:-1], 1))], axis=-1)


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
