"""HDNAG: a user's state to the codes of the next item, coarse first, then all fine digits at once.

Design part 5. An item with semantic ID (c, f_1 .. f_L) scores

    S1(i) = <q_c, e_c> + sum_j <h_j, E[j, f_j]> + b_i    with b_i = sum_j r[c, j, f_j] + gamma pop_i
          + g_1 <p, o_c> + g_2 sum_j <(p R)_j, w[j, f_j]> ,

what a user's state s asks of learned code embeddings, and how like the user's interest p is to the
vector that the ID stands for: o_c is the cell's centroid and w[j, v] a codeword, as the codebook
has them, R its rotation, and p a fading mean of the history's items in the same space. Only g is
learned of the second part: likeness to the last items does not overfit, and says what no
collaborative signal says. gamma, if asked for, weighs log popularity; digits that archetypes share
have no w. So S1 is an inner product of the query [q_c ; g_1 p ; h_1 ; g_2 (p R)_1 ; .. ; 1] with
the item vector [e_c ; o_c ; E[1, f_1] ; w[1, f_1] ; .. ; b_i].

One matrix In reads codes and asks for them: an item's codes enter the trunk as
x_i = In^T [e_c ; E[1, f_1] .. E[L, f_L]], and [q_c ; h_1 .. h_L] = In s. Hence

    S1(i) = <s, x_i> + b_i + <p, m_i>,   m_i = g_1 o_c + g_2 R^T [w[1, f_1] .. w[L, f_L]] ,

two vectors per item, and a softmax over the whole catalogue costs about what it costs SASRec. The
coarse logits are a_c = (<q_c, e_c> + g_1 <p, o_c>) / w with a learned w.

S2 adds a dense term for the best items under S1,

    S2(i) = S1(i) + <s, y_i> + sum_m k_m alpha~[i, m] <p_m, e[i, m]> + k_z <p, z_i>
          + rho [i in the history],      y_i = V z_i + u_i ,

z_i being the item as PMAT fuses it for the user, u_i, if asked for, a free vector per item, p_m the
fading mean of the history in modality m, k learned, for in one modality likeness says more than in
another, and rho what it takes for an item to be chosen again. k_z is zero in training, where S1 has
what the ID stands for in place of z, and is chosen on validation (`eval/calibration.py`). y then
also enters the trunk, so that S2 contains SASRec with features.

If asked for, p is not the fading mean but what PMAT says that the user asks of z (`fusion.ask`):
its perceiver has weighed the whole history since the last drift by modality, which a trunk would
have to learn anew.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.codes import Centroids, CodeTables, CodeVectors, Meaning, meaning
from semid_jax.models.encoders import unit
from semid_jax.models.linear import multiply
from semid_jax.models.rows import Rows
from semid_jax.models.trunk import Trunk
from semid_jax.types import InputError

DENSE = ("none", "content", "free")
# A score's few scalars are learned so many times faster than its matrices: Adam moves every number
# by about the learning rate, and these have a longer way to go.
FASTER = 30.0


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the generator.

    Attributes:
      width: D, of the trunk.
      layers: transformer blocks.
      heads: attention heads; divides width.
      digit_width: d, width of a fine code embedding.
      condition_rank: rank of the additive condition r; 0 for none.
      dropout: on the input, the attention weights and the residual branches.
      dense: the dense term of S2: "none" (S1 alone), "content" (V z) or "free" (V z + u).
      fading: what an item counts in the interest p, relative to the next one.
      likeness: where g_1, g_2 and every k_m start; 0 leaves all likeness out of both scores.
      repeats: whether S2 learns rho, or has none (an ablation).
      popularity: whether S1 learns how much an item's popularity counts; codes that items share
        can hardly say it.
      belief: whether the interest p is what PMAT believes of the user, and not a fading mean.
      normalised: rank by log p(c) + sum_j log p(f_j | c) and not by S1. An ablation, for
        validation only: log Z differs from cell to cell, so this is no inner product.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    digit_width: int = 16
    condition_rank: int = 16
    dropout: float = 0.2
    dense: str = "none"
    fading: float = 0.7
    likeness: float = 2.0
    repeats: bool = True
    popularity: bool = False
    belief: bool = False
    normalised: bool = False

    def __post_init__(self) -> None:
        """Checks what a reader can get wrong.

        Raises:
          InputError: an unknown dense term, or one beside a normalised score.
        """
        if self.dense not in DENSE:
            raise InputError(f"model.dense: {self.dense!r} is not one of {', '.join(DENSE)}")
        if self.normalised and self.dense != "none":
            raise InputError("model.normalised: has no dense term; set model.dense=none")


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
      modalities: M.
    """

    config: GeneratorConfig
    cells: int
    digits: int
    codewords: int
    max_length: int
    n_items: int
    content: int
    modalities: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        normal, zeros = nn.initializers.normal, nn.initializers.zeros
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        codes = c.width + self.digits * c.digit_width
        self.codes_in = self.param("codes_in", normal(0.02), (codes, c.width))
        self.coarse_codes = self.param("coarse_codes", normal(0.02), (self.cells, c.width))
        self.fine_codes = self.param(
            "fine_codes", normal(1.0), (self.digits, self.codewords, c.digit_width)
        )
        if c.condition_rank:
            self.condition_down = self.param(
                "condition_down", normal(c.width**-0.5), (c.width, c.condition_rank)
            )
            self.condition_up = self.param(
                "condition_up", zeros, (c.condition_rank, self.digits, c.digit_width)
            )
        self.coarse_weight = self.param("coarse_weight", nn.initializers.ones, ())
        start = nn.initializers.constant(c.likeness / FASTER)
        self.slow_likeness = self.param("likeness", start, (2,))
        if c.popularity:
            self.slow_popularity = self.param("popularity", zeros, ())
        if self.has_dense:
            self.slow_likeness_by = self.param("likeness_by", start, (self.modalities,))
            self.chosen_likeness = self.param("likeness_of_z", zeros, ())
            self.dense_in = self.param(
                "dense_in", nn.initializers.lecun_normal(), (self.content, c.width)
            )
            if c.repeats:
                self.slow_repeat = self.param("repeat", zeros, ())
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

    def likeness(self) -> jax.Array:
        """g, float32[2]."""
        return self._learned(self.slow_likeness)

    def likeness_by(self) -> jax.Array:
        """k, float32[M]."""
        return self._learned(self.slow_likeness_by)

    def likeness_of_z(self) -> jax.Array:
        """k_z, float32[]; nothing is learned of it."""
        return self.chosen_likeness if self.config.likeness else jnp.zeros(())

    def repeat(self) -> jax.Array:
        """rho, float32[]."""
        return FASTER * self.slow_repeat if self.config.repeats else jnp.zeros(())

    def _learned(self, likeness: jax.Array) -> jax.Array:
        """A scale of likeness; one that starts at zero is meant to stay there."""
        return FASTER * (likeness if self.config.likeness else jax.lax.stop_gradient(likeness))

    def tables(self, centroids: Centroids) -> CodeTables:
        """What the codes look up, as every score uses it."""
        return CodeTables(
            coarse=jnp.concatenate([self.coarse_codes, centroids.coarse], axis=-1),
            fine=jnp.concatenate([unit(self.fine_codes), centroids.fine], axis=-1),
            condition=self._condition(),
        )

    def read(self, coarse: jax.Array, fine: jax.Array, z: jax.Array, items: jax.Array) -> jax.Array:
        """Items as the trunk reads them: x of their codes, and y where there is one.

        Args:
          coarse: int32[...].
          fine: uint8[..., L].
          z: float32[..., D_z].
          items: int32[...].

        Returns:
          float32[..., D].
        """
        x = self._embed(coarse, fine)
        return x + self.dense_vectors(z, items) if self.has_dense else x

    def code_vectors(
        self, coarse: jax.Array, fine: jax.Array, stands_for: Meaning, popularity: jax.Array
    ) -> CodeVectors:
        """Items as S1 meets them.

        Args:
          coarse: int32[...].
          fine: uint8[..., L].
          stands_for: what these codes mean.
          popularity: float32[...], pop of the items.
        """
        likeness = self.likeness()
        return CodeVectors(
            x=self._embed(coarse, fine),
            m=likeness[0] * stands_for.cell + likeness[1] * stands_for.detail,
            bias=self.item_bias(coarse, fine, popularity),
        )

    def item_bias(self, coarse: jax.Array, fine: jax.Array, popularity: jax.Array) -> jax.Array:
        """b_i = sum_j r[c, j, f_j] + gamma pop_i: the additive condition of IDs, and popularity.

        Args:
          coarse: int32[...].
          fine: uint8[..., L].
          popularity: float32[...], pop of the items; not looked at if the model learns no gamma.

        Returns:
          float32[...].
        """
        condition, codes = self._condition(), unit(self.fine_codes)
        bias = jnp.zeros(coarse.shape)
        if self.config.popularity:
            bias += FASTER * self.slow_popularity * popularity
        for j in range(self.digits):
            # A table of C x K numbers: no vector per item is looked up.
            bias += (condition[:, j] @ codes[j].T)[coarse, fine[..., j].astype(jnp.int32)]
        return bias

    def _embed(self, coarse: jax.Array, fine: jax.Array) -> jax.Array:
        """x, float32[..., D], of int32[...] and uint8[..., L]."""
        width, digits, fine = self.config.width, jnp.arange(self.digits), fine.astype(jnp.int32)
        lead = coarse.shape
        if coarse.size < self.codewords:  # few items: nothing is made of whole tables for them
            codes = unit(self.fine_codes[digits, fine]).reshape(*lead, -1)
            looked_up = jnp.concatenate([self.coarse_codes[coarse], codes], axis=-1)
            return multiply(looked_up, self.codes_in)
        of_cell = self.coarse_codes @ self.codes_in[:width]
        codes = unit(self.fine_codes)[digits, fine].reshape(*lead, -1)
        return of_cell[coarse] + multiply(codes, self.codes_in[width:])

    def _condition(self) -> jax.Array:
        """G_j e_c, float32[C, L, d]."""
        if not self.config.condition_rank:
            return jnp.zeros((self.cells, self.digits, self.config.digit_width))
        down = self.coarse_codes @ self.condition_down
        return jnp.einsum("cr,rld->cld", down, self.condition_up)

    def dense_vectors(self, z: jax.Array, items: jax.Array | slice) -> jax.Array:
        """y = V z + u: float32[..., D_z] and int32[...], or a range, to float32[..., D]."""
        y = multiply(z, self.dense_in)
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

    def last(self, vectors: jax.Array, rows: Rows) -> jax.Array:
        """float32[B, D], the state after the last item of each history, of its float32[n, D]."""
        state: jax.Array = self.trunk.last(self.config.width**0.5 * vectors, rows)
        return state

    def query(
        self, centroids: Centroids, states: jax.Array, interest: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """What a user asks of the codes' tables.

        Args:
          centroids: of the codebook.
          states: float32[..., D], s.
          interest: float32[..., D_z], p.

        Returns:
          (float32[..., D + D_z], [q_c ; g_1 p]; float32[..., L, d + d_z], [h_j ; g_2 (p R)_j]).
        """
        c, lead, likeness = self.config, states.shape[:-1], self.likeness()
        asked = multiply(states, self.codes_in.T)
        heads = asked[..., c.width :].reshape(*lead, self.digits, c.digit_width)
        if centroids.fine.shape[-1] == self.content:
            parts = jnp.broadcast_to(interest[..., None, :], (*lead, self.digits, self.content))
        else:
            turned = interest @ centroids.rotation
            parts = turned.reshape(*lead, -1, centroids.fine.shape[-1])
            nothing = [(0, 0)] * len(lead) + [(0, self.digits - parts.shape[-2]), (0, 0)]
            parts = jnp.pad(parts, nothing)
        coarse = [asked[..., : c.width], likeness[0] * interest]
        fine = [heads, likeness[1] * parts]
        return jnp.concatenate(coarse, axis=-1), jnp.concatenate(fine, axis=-1)

    def __call__(
        self, centroids: Centroids, coarse: jax.Array, fine: jax.Array, z: jax.Array
    ) -> jax.Array:
        """Touches every parameter, for `init`; z is float32[B, T, D_z]."""
        stands_for = meaning(centroids, coarse, fine)
        vectors = self.code_vectors(coarse, fine, stands_for, jnp.zeros(coarse.shape))
        states = self.states(self.read(coarse, fine, z, coarse), coarse >= 0)
        return self.query(centroids, states, z)[1].sum() + vectors.bias.sum() + vectors.m.sum()


def interests(vectors: jax.Array, fading: float) -> jax.Array:
    """The fading mean of a history up to each of its items: p of z, p_m of e.

    Args:
      vectors: float32[B, T, ...], right padded.
      fading: what an item counts, relative to the next one.

    Returns:
      float32[B, T, ...]; those of padding are of no use.
    """
    places = jnp.arange(vectors.shape[1])
    lag = places[:, None] - places
    weight = jnp.where(lag >= 0, fading ** jnp.maximum(lag, 0), 0.0)
    weight = weight / jnp.sum(weight, axis=1, keepdims=True)
    return jnp.einsum("tk,bk...->bt...", weight, vectors)


def last_interest(vectors: jax.Array, mask: jax.Array, fading: float) -> jax.Array:
    """The fading mean of whole histories, `interests` at the last item of each.

    Args:
      vectors: float32[B, T, ...], right padded.
      mask: bool[B, T], False on padding.
      fading: what an item counts, relative to the next one.

    Returns:
      float32[B, ...].
    """
    lag = jnp.sum(mask, axis=1)[:, None] - 1 - jnp.arange(mask.shape[1])
    weight = jnp.where(mask, fading ** jnp.maximum(lag, 0), 0.0)
    weight = weight / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1e-9)
    return jnp.einsum("bk,bk...->b...", weight, vectors)


def query_vector(coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """The query of S1.

    Args:
      coarse: float32[..., D + D_z], of `Generator.query`.
      fine: float32[..., L, d + d_z].

    Returns:
      float32[..., D + D_z + L (d + d_z) + 1].
    """
    lead = coarse.shape[:-1]
    return jnp.concatenate([coarse, fine.reshape(*lead, -1), jnp.ones((*lead, 1))], axis=-1)
