"""Running sums of a history: all that the perceiver needs of it, O(1) per interaction.

The sums before some positions are one product (training), the sums of a stream are one addition
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


def sum_before(memory: Memory, position: jax.Array, window: int) -> tuple[Memory, Memory]:
    """Memories of what came before some positions.

    Args:
      memory: of single items, axes [B, T, ...].
      position: int32[B, P], at most T.
      window: W, length of the short-term memory.

    Returns:
      (long, short), each with axes [B, P, ...]; of t they cover items 0..t-1 and max(0, t-W)..t-1.
    """
    ago = position[..., None] - jnp.arange(memory.count.shape[1])

    def total(is_in: jax.Array) -> Memory:
        share = is_in.astype(memory.count.dtype)
        return jax.tree.map(lambda a: jnp.einsum("bpt,bt...->bp...", share, a), memory)

    return total(ago > 0), total((ago > 0) & (ago <= window))
