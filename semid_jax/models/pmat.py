"""PMAT: how much a user cares for each modality, what they are after, and items seen that way.

Design part 3. The module holds parameters; the maths of histories is in `memory.py`, fusion and
archetypes in `fusion.py`, the losses in `pmat_losses.py`.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.encoders import ModalityDecoder, ModalityEncoder, unit
from semid_jax.models.memory import Memory, coherence


@dataclasses.dataclass(frozen=True)
class PmatConfig:
    """Sizes, losses and training of the tokenizer.

    Attributes:
      width: D, width of e and z.
      hidden: width of the encoders' hidden layer.
      archetypes: A; 1 is the static tokenizer.
      window: W, the short-term memory.
      steps: training steps.
      batch_size: users per step.
      positions: positions of a history that bear loss in a step.
      candidates: items that the true next item is told from.
      lr: learning rate of Adam, cosine decay.
      reconstruction: weight of the reconstruction loss.
      consistency: weight of the contrastive consistency losses.
      balance: weight of the terms that keep alpha from one modality and from uniform.
      quantile: share of drift-free histories that lie below the drift threshold.
      margin: hysteresis; a code moves if it saves this share of the mean squared distance.
      budget: share of a user's read-side codes that one update may move.
    """

    width: int = 128
    hidden: int = 256
    archetypes: int = 8
    window: int = 10
    steps: int = 600
    batch_size: int = 64
    positions: int = 16
    candidates: int = 1024
    lr: float = 2e-3
    reconstruction: float = 0.1
    consistency: float = 0.1
    balance: float = 0.05
    quantile: float = 0.98
    margin: float = 0.1
    budget: float = 0.2


@struct.dataclass
class Population:
    """What the crowd looks like, so that one user can be told from it.

    Attributes:
      mean: float32[M, D], mean of e over training interactions.
      spread: float32[M], mean of |e - mean|^2.
    """

    mean: jax.Array
    spread: jax.Array


@struct.dataclass
class Preference:
    """What a history says about its user.

    Attributes:
      alpha: float32[..., M], weights of the modalities, a softmax over those present.
      taste: float32[..., M, D], unit summary of the history in each modality.
      interest: float32[..., D], sum of the tastes weighted by alpha.
    """

    alpha: jax.Array
    taste: jax.Array
    interest: jax.Array


class Pmat(nn.Module):
    """Encoders, perceiver and gate. `modalities` is sorted; parameters are named after them."""

    modalities: tuple[str, ...]
    feature_sizes: tuple[int, ...]
    config: PmatConfig

    def setup(self) -> None:
        """Creates the parameters, each named after its modality."""
        c = self.config
        names = self.modalities
        self.encoders = [
            ModalityEncoder(c.width, c.hidden, name=f"encoder_{name}") for name in names
        ]
        self.decoders = [
            ModalityDecoder(size, name=f"decoder_{name}")
            for name, size in zip(names, self.feature_sizes, strict=True)
        ]
        zeros = nn.initializers.zeros
        self.queries = [self.param(f"query_{name}", zeros, (c.width,)) for name in names]
        self.biases = [self.param(f"bias_{name}", zeros, ()) for name in names]
        self.prior_counts = [
            self.param(f"prior_count_{name}", nn.initializers.constant(1.0), ()) for name in names
        ]
        self.perceiver_hidden = nn.Dense(16, name="perceiver_hidden")
        self.perceiver_out = nn.Dense(1, use_bias=False, name="perceiver_out")
        self.gate_out = nn.Dense(c.width, use_bias=False, kernel_init=zeros, name="gate")
        self.log_scale = self.param("log_scale", nn.initializers.constant(1.0), ())
        self.popularity_weight = self.param("popularity", nn.initializers.constant(0.5), ())

    def encode(self, x: dict[str, jax.Array]) -> jax.Array:
        """Features to unit vectors: modality -> float32[n, d_m] to float32[n, M, D]."""
        parts = [f(x[name]) for f, name in zip(self.encoders, self.modalities, strict=True)]
        return jnp.stack(parts, axis=1)

    def reconstruct(self, e: jax.Array) -> dict[str, jax.Array]:
        """float32[n, M, D] back to modality -> float32[n, d_m]."""
        return {name: self.decoders[m](e[:, m]) for m, name in enumerate(self.modalities)}

    def attention(self, e: jax.Array) -> jax.Array:
        """Weight of an item in its modality's summary: float32[..., M, D] to float32[..., M].

        The latent query of a modality (Perceiver, Jaegle et al. 2021) does not depend on the rest
        of the history, which is what makes the softmax a ratio of running sums.
        """
        return jnp.exp(2.0 * jnp.tanh(jnp.sum(e * jnp.stack(self.queries), axis=-1)))

    def preference(self, memory: Memory, population: Population) -> Preference:
        """Weights and interest that a memory implies.

        Args:
          memory: sums over a history, axes [..., M, D].
          population: the crowd's mean and spread.

        Returns:
          Preference; with an empty memory alpha is the population's.
        """
        n = memory.count
        ratio = coherence(memory) / population.spread
        sure = (n - 1.0).clip(0.0) / (n + 4.0)
        root = jnp.sqrt(jax.nn.relu(ratio) + 0.01) - 0.1
        inputs = jnp.stack([root, ratio, root * sure, ratio * sure, sure], axis=-1)
        hidden = jnp.tanh(self.perceiver_hidden(inputs))
        evidence = (self.perceiver_out(hidden)[..., 0] + 4.0 * root) * sure
        logits = evidence + jnp.stack(self.biases)
        empty = jnp.sum(n, axis=-1, keepdims=True) == 0
        alpha = jax.nn.softmax(jnp.where((n > 0) | empty, logits, -1e9), axis=-1)
        prior = jax.nn.softplus(jnp.stack(self.prior_counts))
        mean = memory.weighted / (memory.weight + prior)[..., None]
        taste = unit(mean, 1e-4)
        return Preference(alpha, taste, jnp.sum(alpha[..., None] * taste, axis=-2))

    def gate(self, interest: jax.Array) -> jax.Array:
        """Which directions of z an interest stresses: float32[..., D] to float32[..., D]."""
        return 0.5 * jnp.tanh(self.gate_out(interest))

    def score(
        self, preference: Preference, e: jax.Array, mask: jax.Array, log_popularity: jax.Array
    ) -> jax.Array:
        """How well each candidate suits each user: a multinomial logit in alpha.

        Args:
          preference: of n users.
          e: float32[S, M, D] of the candidates.
          mask: bool[S, M].
          log_popularity: float32[S].

        Returns:
          float32[n, S].
        """
        gate = 1.0 + self.gate(preference.interest)
        query = preference.alpha[..., None] * preference.taste * gate[..., None, :]
        m = mask.astype(e.dtype)
        e = e * m[..., None]
        raw = query.reshape(query.shape[0], -1) @ e.reshape(e.shape[0], -1).T
        share = preference.alpha @ m.T
        scale = jnp.exp(self.log_scale)
        return scale * raw / jnp.maximum(share, 1e-3) + self.popularity_weight * log_popularity

    def score_own(
        self, preference: Preference, e: jax.Array, mask: jax.Array, log_popularity: jax.Array
    ) -> jax.Array:
        """`score` of one candidate per user: e float32[n, M, D], mask bool[n, M] to float32[n]."""
        gate = 1.0 + self.gate(preference.interest)
        m = mask.astype(e.dtype)
        affinity = jnp.einsum("nmd,nd,nmd->nm", preference.taste, gate, e)
        raw = jnp.sum(preference.alpha * affinity * m, axis=-1)
        share = jnp.sum(preference.alpha * m, axis=-1)
        scale = jnp.exp(self.log_scale)
        return scale * raw / jnp.maximum(share, 1e-3) + self.popularity_weight * log_popularity

    def initialise(self, x: dict[str, jax.Array], memory: Memory, population: Population) -> None:
        """Touches every parameter once, for `init`."""
        e = self.encode(x)
        self.reconstruct(e)
        self.attention(e)
        preference = self.preference(memory, population)
        self.gate(preference.interest)
