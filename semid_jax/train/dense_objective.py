"""What models with dense item vectors are trained on: the right item among all items."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.models.bert4rec import Bert4Rec, choose_hidden
from semid_jax.models.full_softmax import full_softmax_loss
from semid_jax.models.windows import append, newest
from semid_jax.train.step import Batch, Chance, Losses


def next_item_losses(model: Any) -> Losses:
    """Full-softmax cross-entropy at every loss-bearing position, for `make_step`.

    The step's constants are the items' features, float32[N + 1, F], or None.

    Args:
      model: module that maps (features, history, seeds) to (item vectors, states).
    """

    def sums(params: Any, features: Any, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        items, states = model.apply(params, features, batch["inputs"], seeds)
        targets = batch["targets"].reshape(-1)
        bears = (targets > 0).astype(jnp.float32)
        flat = states.reshape(-1, states.shape[-1])
        loss = full_softmax_loss(flat, items, targets, bears)
        return {"count": jnp.sum(bears), "item_loss": loss}

    return Losses(sums, {"item_loss": 1.0})


def cloze_losses(model: Bert4Rec) -> Losses:
    """Full-softmax cross-entropy at masked places, for `make_step`.

    A training sequence is the inputs of a window and its last target. The step's constants are
    the items' features, float32[N + 1, F], or None.

    Args:
      model: module.
    """
    config = model.config

    def sums(params: Any, features: Any, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs, targets = batch["inputs"], batch["targets"]
        last = newest(inputs, targets)
        real = last > 0  # rows that only fill a batch bear no loss
        sequence, end = append(inputs, jnp.maximum(last, 1))
        hidden = choose_hidden(sequence, end, seeds, config.masked, config.last_only)
        items = model.apply(params, features, method="items")
        states = model.apply(params, items, sequence, hidden, seeds, method="states")
        bears = (hidden & real[:, None]).astype(jnp.float32).reshape(-1)
        flat = states.reshape(-1, states.shape[-1])
        loss = full_softmax_loss(flat, items, sequence.reshape(-1), bears)
        return {"count": jnp.sum(bears), "item_loss": loss}

    return Losses(sums, {"item_loss": 1.0})
