"""Items drawn as candidates: half of them as often as they are chosen, half all alike.

The draws are of whole numbers: running sums of probabilities in float32 would leave out most items
of a catalogue of tens of millions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.data.sequences import log_proposal


@struct.dataclass
class Proposal:
    """How likely an item is to be drawn.

    Attributes:
      log_p: float32[N + 1], log probability of each; row 0 is never drawn.
      chosen: int32[N + 1], training interactions of the items up to each.
    """

    log_p: jax.Array
    chosen: jax.Array


def make_proposal(counts: np.ndarray) -> Proposal:
    """The proposal of int64[N + 1], training interactions per item, together below 2^31."""
    return Proposal(jnp.asarray(log_proposal(counts)), jnp.asarray(np.cumsum(counts), jnp.int32))


def draw_items(proposal: Proposal, key: jax.Array, count: int) -> jax.Array:
    """Draws items with replacement.

    Args:
      proposal: of the catalogue.
      key: draws them.
      count: S.

    Returns:
      int32[S], from 1 to N.
    """
    half, place, any_item = jax.random.split(key, 3)
    place = jax.random.randint(place, (count,), 0, proposal.chosen[-1])
    popular = jnp.searchsorted(proposal.chosen, place, side="right").astype(jnp.int32)
    uniform = jax.random.randint(any_item, (count,), 1, len(proposal.chosen))
    return jnp.where(jax.random.bernoulli(half, shape=(count,)), popular, uniform)
