"""Users searched for in turns, so that what a turn reads stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Of codes read at once, more users being searched for in turns: a CPU keeps them in its cache.
BYTES = {"cpu": 1 << 24, "other": 1 << 30}


def codes_in_turns(search: Callable[[Any], Any], of_users: Any, each: int) -> Any:
    """`in_turns` of as many users as suits the platform.

    Args:
      search: as there.
      of_users: as there.
      each: bytes of codes that are read for a user.
    """
    B = len(jax.tree.leaves(of_users)[0])
    most = BYTES.get(jax.default_backend(), BYTES["other"])
    turns = min(-(-B * each // most), B)
    return search(of_users) if turns <= 1 else in_turns(search, of_users, -(-B // turns))


def in_turns(search: Callable[[Any], Any], of_users: Any, size: int) -> Any:
    """Runs a search over some users after the other.

    Args:
      search: a tree of arrays [size, ...] to a tree of arrays [size, ...].
      of_users: a tree of arrays [B, ...]; the last user fills the last turn.
      size: users of a turn.

    Returns:
      What `search` makes, arrays [B, ...].
    """
    B = len(jax.tree.leaves(of_users)[0])

    def grouped(a: jax.Array) -> jax.Array:
        wide = jnp.pad(a, ((0, -B % size),) + ((0, 0),) * (a.ndim - 1), mode="edge")
        return wide.reshape(-1, size, *a.shape[1:])

    found = jax.lax.map(search, jax.tree.map(grouped, of_users))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:B], found)
