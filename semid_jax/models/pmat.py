"""PMAT: how much a user cares for each modality, what they are after, and items seen that way.

Design part 3. The module holds parameters; the maths of histories is in `perceiver.py`, fusion and
archetypes in `fusion.py`, the losses in `pmat_losses.py`.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.models.encoders import Refiner, unit
from semid_jax.models.fusion import ask, fuse
from semid_jax.models.perceiver import Latents, Preference, Prior, fit_latents, simplex
from semid_jax.settings import check_least, check_share


@dataclasses.dataclass(frozen=True)
class PmatConfig:
    """Sizes, losses and training of the tokenizer.

    Attributes:
      width: D, width of e and z.
      hidden: width of the refiners' hidden layer.
      archetypes: A; 1 is the static tokenizer.
      uniform: every user has the same weights for all modalities, as an ablation.
      gated: an interest stresses directions of z; False is an ablation.
      tastes: K, latents of the perceiver per modality.
      window: W, the short-term memory.
      steps: training steps.
      batch_size: users per step.
      positions: positions of a history that bear loss in a step.
      candidates: items that the true next item is told from.
      lr: learning rate of Adam, cosine decay.
      consistency: weight of the contrastive consistency losses.
      balance: weight of the terms that keep alpha from one modality and from uniform.
      pooled: weight of the loss by which the mean of the last W items foresees the next one in z.
      own: z takes a vector of the item's own beside what its features say, for items that
        training has. It starts from what is chosen together, at this norm, and is learned like all
        else (three float32[N + 1, D] of memory); 0: items have none.
      context: z has so many directions more, principal components of the mean state in which an
        item is chosen (`tokenizers/contexts.py`), and all of its directions are whitened. The gate
        is then the crowd's for every archetype. They are learned by a softmax over all items, so
        this is for catalogues of some 10^5. 0: z is made of features, and own vectors, alone.
        Vectors of another tokenizer may have them too.
      context_steps: training steps of what contexts are read from.
      hold: without a drift a user becomes another archetype only if its squared distance is less
        than this share of the one's so far.
      quantile: share of drift-free histories that lie below the drift threshold.
      margin: hysteresis; an item moves if more than this share of its codes are others.
      budget: share of a user's read-side codes that one update may move.
    """

    width: int = 128
    hidden: int = 256
    archetypes: int = 8
    uniform: bool = False
    gated: bool = True
    tastes: int = 24
    window: int = 10
    steps: int = 600
    batch_size: int = 64
    positions: int = 16
    candidates: int = 1024
    lr: float = 2e-3
    consistency: float = 0.1
    balance: float = 0.05
    pooled: float = 1.0
    own: float = 0.0
    context: int = 0
    context_steps: int = 2000
    hold: float = 0.5
    quantile: float = 0.98
    margin: float = 0.1
    budget: float = 0.2

    def __post_init__(self) -> None:
        """Refuses sizes and shares that cannot be."""
        sizes = "width", "hidden", "archetypes", "tastes", "window"
        of_steps = "batch_size", "positions", "candidates"
        from_zero = "context", "context_steps", "steps"
        least = dict.fromkeys(from_zero, 0) | dict.fromkeys((*sizes, *of_steps), 1)
        check_least(self, "tokenizer", least)
        check_share(self, "tokenizer", ("hold", "quantile", "margin", "budget"))

    @property
    def points_width(self) -> int:
        """Directions of z."""
        return self.width + self.context


def find_owners(counts: np.ndarray) -> np.ndarray:
    """Whose own vector each item has: int64[N + 1] training interactions to int32[N + 1].

    An item's number, or 0 where nothing can be learned of it: those have none.
    """
    return np.where(counts > 0, np.arange(len(counts)), 0).astype(np.int32)


class Pmat(nn.Module):
    """Perceiver, refiners and gate. `modalities` is sorted; parameters are named after them.

    `rows` is N + 1; only the items' own vectors need it.
    """

    modalities: tuple[str, ...]
    config: PmatConfig
    rows: int = 1

    def setup(self) -> None:
        """Creates the parameters, each named after its modality."""
        c = self.config
        names = self.modalities
        zeros = nn.initializers.zeros
        shape = c.tastes, c.width
        # Only directions count; short vectors turn faster under Adam.
        short = nn.initializers.normal(0.04)
        self.tastes = [self.param(f"taste_{name}", short, shape) for name in names]
        self.refiners = [Refiner(c.hidden, name=f"refiner_{name}") for name in names]
        if c.own:
            self.own = self.param("own", zeros, (self.rows, c.width))
        self.taste_priors = [self.param(f"taste_prior_{name}", zeros, shape[:1]) for name in names]
        self.weight_priors = [self.param(f"weight_prior_{name}", zeros, ()) for name in names]
        self.log_strength = self.param("log_strength", nn.initializers.constant(1.0), ())
        self.gate_out = nn.Dense(c.width, use_bias=False, kernel_init=zeros, name="gate")
        self.log_scale = self.param("log_scale", zeros, ())
        self.log_sharpness = self.param("log_sharpness", nn.initializers.constant(3.0), ())
        self.values = [self.param(f"value_{name}", zeros, shape) for name in names]
        self.popularity_weight = self.param("popularity", nn.initializers.constant(0.5), ())

    def latents(
        self, e: jax.Array, mask: jax.Array, log_popularity: jax.Array, log_drawn: jax.Array
    ) -> Latents:
        """The perceiver's latents, normalised by a crowd.

        Args:
          e: float32[n, M, D] of a sample of items.
          mask: bool[n, M].
          log_popularity: float32[n].
          log_drawn: float32[n], log of how often the sample has each item, by how it was drawn.
        """
        grid = jnp.asarray(np.log(simplex(len(self.modalities))[0]))
        prior = Prior(grid @ jnp.stack(self.weight_priors), jnp.stack(self.taste_priors))
        log_weight = self.log_base(log_popularity) - log_drawn
        return fit_latents(jnp.stack(self.tastes), self.log_strength, prior, e, mask, log_weight)

    def log_base(self, log_popularity: jax.Array) -> jax.Array:
        """gamma log pop, how often an item is chosen by a user without weights or tastes."""
        return self.popularity_weight * log_popularity

    def gate(self, interest: jax.Array) -> jax.Array:
        """Which directions of z an interest stresses: float32[..., D] to float32[..., D]."""
        return 0.5 * jnp.tanh(self.gate_out(interest)) * self.config.gated

    def refine(self, e: jax.Array, owner: jax.Array) -> jax.Array:
        """h, what z takes of each modality.

        Args:
          e: float32[..., M, D].
          owner: int32[...], whose own vector each item has, see `find_owners`.

        Returns:
          float32[..., M, D], zero where e is.
        """
        has = jnp.any(e != 0, axis=-1, keepdims=True)
        own = self.own[owner] * (owner > 0)[..., None] if self.config.own else 0.0
        parts = [f(e[..., m, :], has[..., m, :] * own) for m, f in enumerate(self.refiners)]
        return jnp.stack(parts, axis=-2)

    def query(self, preference: Preference) -> jax.Array:
        """How a candidate's score grows with its e: float32[n, M, D]."""
        return jnp.exp(self.log_scale) * preference.query

    def table(self, taste: jax.Array) -> jax.Array:
        """What a taste asks of z: the taste and what is learned beside it, float32[M, K, D]."""
        return jax.lax.stop_gradient(taste) + jnp.stack(self.values)

    def refined_query(
        self, preference: Preference, taste: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """How a candidate's score grows with its h, if it has all modalities.

        Args:
          preference: of n users.
          taste: float32[M, K, D], of the latents.

        Returns:
          float32[n, M, D], and float32[n, D], what the user asks of z.
        """
        asked = ask(preference.belief, preference.alpha, self.table(taste))
        return self._of_parts(asked, preference), asked

    def pooled_query(self, pooled: jax.Array, mask: jax.Array, preference: Preference) -> jax.Array:
        """How a candidate's score grows with its h, if what was chosen before is asked for again.

        Args:
          pooled: float32[..., M, D], mean h of the items before.
          mask: bool[..., M], whether one of them has the modality.
          preference: of as many users.

        Returns:
          float32[..., M, D].
        """
        z = fuse(pooled, mask, preference.alpha, self.gate(preference.interest))
        return self._of_parts(jnp.exp(self.log_sharpness) * unit(z), preference)

    def _of_parts(self, asked: jax.Array, preference: Preference) -> jax.Array:
        """What asks z, float32[..., D], as what asks each h, float32[..., M, D]."""
        gate = 1.0 + self.gate(preference.interest)
        return preference.alpha[..., None] * (gate * asked)[..., None, :]

    def initialise(self, e: jax.Array) -> None:
        """Touches every parameter once, for `init`: e float32[n, M, D]."""
        latents = self.latents(e, jnp.ones(e.shape[:2], bool), jnp.zeros(len(e)), jnp.zeros(len(e)))
        self.gate(latents.mean[0])
        self.refine(e, jnp.zeros(len(e), jnp.int32))
        self.table(latents.taste)
