"""RPG (Hou et al., "Generating Long Semantic IDs in Parallel", KDD 2025): all digits at once.

An item enters as the mean of its L digits' embeddings; head j maps the state s to
g_j(s) = s + SiLU(W_j s), W_j starting at zero, and

    p_j(v) = softmax_v(cos(g_j(s), E[j, v]) / tau) ,   score(i) = sum_j log p_j(f_ij) .

log Z_j is the same for every item, so the score is, up to a constant of the user, the inner
product of [g_1 / tau ... g_L / tau] and [E[1, f_1] ... E[L, f_L]], both of unit parts: S1 of the
design with one cell and no condition, and every search of `decode` applies.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from semid_jax.models.chunked import chunk_rows, chunked_loss
from semid_jax.models.encoders import unit
from semid_jax.models.rows import every_place
from semid_jax.models.trunk import Trunk


@dataclasses.dataclass(frozen=True)
class RpgConfig:
    """Sizes of RPG.

    Attributes:
      width: D, of the trunk and of digit embeddings.
      layers: transformer blocks.
      heads: attention heads; divides width.
      dropout: on the input, the attention weights and the residual branches.
      temperature: tau, fixed.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.5
    temperature: float = 0.03


class Rpg(nn.Module):
    """Digit embeddings shared by input and output, a causal trunk, one head per digit."""

    config: RpgConfig
    digits: int
    codewords: int
    max_length: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.trunk = Trunk(c.width, c.layers, c.heads, self.max_length, c.dropout)
        self.codes = self.param(
            "codes", nn.initializers.normal(0.02), (self.digits, self.codewords, c.width)
        )
        self.digit_heads = self.param(
            "digit_heads", nn.initializers.zeros, (self.digits, c.width, c.width)
        )

    def tables(self) -> jax.Array:
        """float32[L, K, D], unit embeddings of the digits' values."""
        return unit(jnp.asarray(self.codes))

    def states(self, fine: jax.Array, mask: jax.Array, seeds: jax.Array | None = None) -> jax.Array:
        """The state after each item of a history.

        Args:
          fine: uint8[B, T, L].
          mask: bool[B, T], False on right padding.
          seeds: uint32[B] for dropout, None in evaluation.

        Returns:
          float32[B, T, D].
        """
        return self.trunk(self._read(fine, mask), seeds)

    def _read(self, fine: jax.Array, mask: jax.Array) -> jax.Array:
        """What enters the trunk: float32[B, T, D]."""
        codes = self.codes[jnp.arange(self.digits), fine.astype(jnp.int32)]
        x = jnp.mean(codes, axis=-2) * mask[..., None]
        return x * (self.config.width * self.digits) ** 0.5

    def digit_queries(self, states: jax.Array) -> jax.Array:
        """See the function of this name."""
        return digit_queries(states, jnp.asarray(self.digit_heads), self.config.temperature)

    def last(self, fine: jax.Array, mask: jax.Array) -> jax.Array:
        """float32[B, D], the state after the last item of each history, see `states`."""
        rows = every_place(mask)
        return self.trunk.last(rows.pack(self._read(fine, mask)), rows)

    def __call__(
        self, fine: jax.Array, mask: jax.Array, seeds: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """(states float32[B, T, D], (heads float32[L, D, D], tables float32[L, K, D]))."""
        return self.states(fine, mask, seeds), (jnp.asarray(self.digit_heads), self.tables())


def digit_queries(states: jax.Array, heads: jax.Array, temperature: float) -> jax.Array:
    """g_j(s) / (|g_j(s)| tau).

    Args:
      states: float32[..., D].
      heads: float32[L, D, D], W_j.
      temperature: tau.

    Returns:
      float32[..., L, D].
    """
    turned = jnp.einsum("...d,lde->...le", states, heads)
    return unit(states[..., None, :] + jax.nn.silu(turned)) / temperature


def digit_loss(
    states: jax.Array,
    shared: tuple[jax.Array, jax.Array],
    fine: jax.Array,
    weight: jax.Array,
    temperature: float,
) -> jax.Array:
    """The multi-token loss: mean over digits of -log p_j(f_j).

    Args:
      states: float32[n, D].
      shared: heads float32[L, D, D] and tables float32[L, K, D].
      fine: uint8[n, L], digits of the true next item.
      weight: float32[n].
      temperature: tau.

    Returns:
      float32[], sum over n.
    """

    def losses(
        shared: tuple[jax.Array, jax.Array], states: jax.Array, fine: jax.Array
    ) -> jax.Array:
        heads, tables = shared
        queries = digit_queries(states, heads, temperature)
        logits = jnp.einsum("nld,lkd->lnk", queries, tables)
        true = fine.T.astype(jnp.int32)[..., None]
        own = jnp.take_along_axis(logits, true, axis=-1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - own, axis=0)

    digits, codewords, _ = shared[1].shape
    rows = chunk_rows(digits * codewords, len(states))
    return chunked_loss(losses, rows, shared, states, fine, weight)
