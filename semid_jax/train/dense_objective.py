"""What models with dense item vectors are trained on: the next item among all items."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.models.dropout import example_seeds
from semid_jax.models.sasrec import SasRec, full_softmax_loss
from semid_jax.train.step import Batch, Losses


def next_item_losses(model: SasRec, seed: int) -> Losses:
    """Full-softmax cross-entropy at every loss-bearing position, for `make_step`.

    The step's constants are the items' features, float32[N + 1, F], or None.

    Args:
      model: module.
      seed: of dropout.
    """

    def sums(params: Any, features: Any, batch: Batch, step: jax.Array) -> dict[str, jax.Array]:
        seeds = example_seeds(batch["example"] ^ jnp.uint32(seed), step)
        items, states = model.apply(params, features, batch["inputs"], seeds)
        targets = batch["targets"].reshape(-1)
        bears = (targets > 0).astype(jnp.float32)
        flat = states.reshape(-1, states.shape[-1])
        loss = full_softmax_loss(flat, items, targets, bears)
        return {"count": jnp.sum(bears), "item_loss": loss}

    return Losses(sums, {"item_loss": 1.0})
