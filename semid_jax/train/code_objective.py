"""What generators of codes are trained on: every code given those before it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.gpt2 import Gpt2, code_loss
from semid_jax.models.tiger import Tiger
from semid_jax.models.windows import append, newest
from semid_jax.train.step import Batch, Chance, Losses


@struct.dataclass
class CodeTable:
    """The catalogue as a training step reads it.

    Attributes:
      codes: uint8[N + 1, L].
      following: uint32[N + 1, L, W], see `trie.next_codes`; None where a code is one of all.
    """

    codes: jax.Array
    following: jax.Array | None = None

    def loss(self, logits: jax.Array, targets: jax.Array, weight: jax.Array) -> jax.Array:
        """`code_loss` of items int32[...]."""
        following = None if self.following is None else self.following[targets]
        return code_loss(logits, self.codes[targets], weight, following)


def gpt2_losses(model: Gpt2) -> Losses:
    """Cross-entropy of the codes of every loss-bearing item, for `make_step`.

    The step's constants are a `CodeTable`.

    Args:
      model: module.
    """

    def sums(params: Any, table: CodeTable, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs, targets = batch["inputs"], batch["targets"]
        sequence, _ = append(inputs, newest(inputs, targets))
        logits = model.apply(params, table.codes[sequence], seeds)
        bears = (targets > 0).astype(jnp.float32)
        return {"count": jnp.sum(bears), "item_loss": table.loss(logits, targets, bears)}

    return Losses(sums, {"item_loss": 1.0})


def tiger_losses(model: Tiger) -> Losses:
    """Cross-entropy of the codes of the last target of every window, for `make_step`.

    The step's constants are a `CodeTable`; windows slide.

    Args:
      model: module.
    """

    def sums(params: Any, table: CodeTable, batch: Batch, chance: Chance) -> dict[str, jax.Array]:
        seeds = chance.dropout_seeds(batch)
        inputs = batch["inputs"]
        target = newest(inputs, batch["targets"])
        known = table.codes[inputs], inputs > 0, table.codes[target]
        logits = model.apply(params, *known, seeds)
        bears = (target > 0).astype(jnp.float32)
        return {"count": jnp.sum(bears), "item_loss": table.loss(logits, target, bears)}

    return Losses(sums, {"item_loss": 1.0})
