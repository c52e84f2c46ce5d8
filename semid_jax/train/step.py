"""One training step, written for one device of many; what is trained is given to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from semid_jax.models.dropout import example_seeds
from semid_jax.parallel import AXIS

Batch = dict[str, jax.Array]


@struct.dataclass
class Chance:
    """What all that is random in a step follows from.

    An argument of the compiled step, and no constant of it: runs of other seeds compile nothing.

    Attributes:
      seed: uint32[], of the run.
      step: int32[].
    """

    seed: jax.Array
    step: jax.Array

    def dropout_seeds(self, batch: Batch) -> jax.Array:
        """uint32[B], one per row of the batch and step: see `example_seeds`."""
        return example_seeds(batch["example"] ^ self.seed, self.step)

    def key(self) -> jax.Array:
        """A key of the step, the same on all devices."""
        return jax.random.fold_in(jax.random.key(self.seed), self.step)


@struct.dataclass
class TrainState:
    """What a step changes.

    Attributes:
      chance: of the next step.
      params: of the model.
      optimiser: of optax.
    """

    chance: Chance
    params: Any
    optimiser: Any


@dataclasses.dataclass(frozen=True)
class Losses:
    """What a model is trained on.

    Attributes:
      sums: (params, constants, batch, chance) to "count", the loss-bearing positions of this
        device, and the sum of every loss over them, float32[] each.
      weights: of the losses; those without one are only reported.
    """

    sums: Callable[[Any, Any, Batch, Chance], dict[str, jax.Array]]
    weights: Mapping[str, float]


def first_state(params: Any, optimiser: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step.

    Args:
      params: as initialised.
      optimiser: of optax.
      seed: of the run.
    """
    chance = Chance(jnp.uint32(seed), jnp.int32(0))
    return TrainState(chance, params, optimiser.init(params))


def make_step(
    losses: Losses, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The step for one device; its gradient and metrics are those of the whole batch.

    Args:
      losses: what is trained on.
      optimiser: of optax.
    """

    def step(
        state: TrainState, constants: Any, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def objective(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            sums = losses.sums(params, constants, batch, state.chance)
            total = sum((w * sums[name] for name, w in losses.weights.items()), jnp.zeros(()))
            return total, sums

        gradient, sums = jax.grad(objective, has_aux=True)(state.params)
        gradient, sums = jax.lax.psum((gradient, sums), AXIS)
        everywhere = jnp.maximum(sums["count"], 1.0)
        gradient = jax.tree.map(lambda g: g / everywhere, gradient)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        metrics = {name: value / everywhere for name, value in sums.items() if name != "count"}
        metrics |= {"count": everywhere, "steps": jnp.ones(())}
        params = optax.apply_updates(state.params, updates)
        later = Chance(state.chance.seed, state.chance.step + 1)
        return TrainState(later, params, optimiser_state), metrics

    return step
