"""What every search returns."""

from __future__ import annotations

import jax
from flax import struct


@struct.dataclass
class Retrieved:
    """Ranked lists, best first; ties go by `topk.tie_hash`.

    Attributes:
      items: int32[B, k], distinct item numbers; 0 where the search found fewer than k.
      scores: float32[B, k], S1 (S2 once rescored); -inf where items is 0.
      scored: int32[B], entries of the user's archetype whose score was computed.
    """

    items: jax.Array
    scores: jax.Array
    scored: jax.Array
