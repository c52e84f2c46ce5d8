"""What generators of codes are trained on: every code given those before it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.models.gpt2 import Gpt2, code_loss
from semid_jax.models.tiger import Tiger
from semid_jax.models.windows import append, newest
from semid_jax.train.step import Batch, Chance, Losses


def gpt2_losses(model: Gpt2) -> Losses:
    """Cross-entropy of the codes of every loss-bearing item, for `make_step`.

    The step's constants are the catalogue's codes, uint8[N + 1, L].

    Args:
      model: module.
    """

    def sums(params: Any, codes: jax.Array, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs, targets = batch["inputs"], batch["targets"]
        sequence, _ = append(inputs, newest(inputs, targets))
        logits = model.apply(params, codes[sequence], seeds)
        bears = (targets > 0).astype(jnp.float32)
        loss = code_loss(logits, codes[targets], bears)
        return {"count": jnp.sum(bears), "item_loss": loss}

    return Losses(sums, {"item_loss": 1.0})


def tiger_losses(model: Tiger) -> Losses:
    """Cross-entropy of the codes of the last target of every window, for `make_step`.

    The step's constants are the catalogue's codes, uint8[N + 1, L]; windows slide.

    Args:
      model: module.
    """

    def sums(params: Any, codes: jax.Array, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs = batch["inputs"]
        target = newest(inputs, batch["targets"])
        logits = model.apply(params, codes[inputs], inputs > 0, codes[target], seeds)
        bears = (target > 0).astype(jnp.float32)
        return {"count": jnp.sum(bears), "item_loss": code_loss(logits, codes[target], bears)}

    return Losses(sums, {"item_loss": 1.0})
