"""Users served in turns, so that what a turn touches stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Touched at once, more users being served in turns: a CPU keeps so much in its cache.
BYTES = {"cpu": 1 << 24, "other": 1 << 30}


def cached_turns(serve: Callable[[Any], Any], of_users: Any, each: int) -> Any:
    """`in_turns` of as many users as suits the platform.

    Args:
      serve: as there.
      of_users: as there.
      each: bytes that are touched for a user.
    """
    B = len(jax.tree.leaves(of_users)[0])
    most = BYTES.get(jax.default_backend(), BYTES["other"])
    turns = min(-(-B * each // most), B)
    return serve(of_users) if turns <= 1 else in_turns(serve, of_users, -(-B // turns))


def in_turns(serve: Callable[[Any], Any], of_users: Any, size: int) -> Any:
    """Serves some users after the others.

    Args:
      serve: a tree of arrays [size, ...] to a tree of arrays [size, ...].
      of_users: a tree of arrays [B, ...]; the last user fills the last turn.
      size: users of a turn.

    Returns:
      What `serve` makes, arrays [B, ...].
    """
    B = len(jax.tree.leaves(of_users)[0])

    def grouped(a: jax.Array) -> jax.Array:
        wide = jnp.pad(a, ((0, -B % size),) + ((0, 0),) * (a.ndim - 1), mode="edge")
        return wide.reshape(-1, size, *a.shape[1:])

    found = jax.lax.map(serve, jax.tree.map(grouped, of_users))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:B], found)
