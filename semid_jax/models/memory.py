"""Running sums of a history: all that the perceiver needs of it, O(1) per interaction.

The sums of every prefix are one cumulative sum (training), the sums of a stream are one addition
(serving), and the two are equal. Design part 3.2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Memory:
    """Sums over a set of items, per modality; missing modalities add nothing.

    Attributes:
      sums: float32[..., M, K], of the items' readings.
      count: float32[..., M], items that have the modality.
    """

    sums: jax.Array
    count: jax.Array


def prefixes(memory: Memory, window: int) -> tuple[Memory, Memory]:
    """Memories of what came before each position.

    Args:
      memory: of single items, axes [B, T, ...].
      window: W, length of the short-term memory.

    Returns:
      (long, short), each with axes [B, T, ...]; entry t covers items 0..t-1 and max(0, t-W)..t-1.
    """

    def before(a: jax.Array) -> jax.Array:
        c = jnp.cumsum(a, axis=1)
        return jnp.concatenate([jnp.zeros_like(c[:, :1]), c[:, :-1]], axis=1)

    long = jax.tree.map(before, memory)

    def recent(a: jax.Array) -> jax.Array:
        t = a.shape[1]
        shifted = jnp.concatenate(
            [jnp.zeros_like(a[:, : min(window, t)]), a[:, : max(t - window, 0)]], 1
        )
        return a - shifted

    return long, jax.tree.map(recent, long)
