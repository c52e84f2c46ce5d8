"""What RPG is trained on: every digit of the next item, each by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.models.rpg import Rpg, digit_loss
from semid_jax.train.step import Batch, Chance, Losses


def rpg_losses(model: Rpg) -> Losses:
    """Cross-entropy of the digits at every loss-bearing position, for `make_step`.

    The step's constants are the catalogue's digits, uint8[N + 1, L].

    Args:
      model: module.
    """

    def sums(params: Any, fine: jax.Array, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs, targets = batch["inputs"], batch["targets"].reshape(-1)
        states, shared = model.apply(params, fine[inputs], inputs > 0, seeds)
        bears = (targets > 0).astype(jnp.float32)
        flat = states.reshape(-1, states.shape[-1])
        loss = digit_loss(flat, shared, fine[targets], bears, model.config.temperature)
        return {"count": jnp.sum(bears), "item_loss": loss}

    return Losses(sums, {"item_loss": 1.0})
