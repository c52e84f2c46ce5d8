"""Users served in turns: what a turn touches stays in the cache, and its users are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Touched at once, more users being served in turns: a CPU keeps so much in its cache.
BYTES = {"cpu": 1 << 24, "other": 1 << 30}
ALIKE = 32  # users of a turn by length: fewer are padded less, more are larger products


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


def widths_of(longest: int) -> list[int]:
    """What histories are padded to, few widths being few programs: a quarter, half, all of T."""
    return sorted({-(-longest // 4), -(-longest // 2), longest})


def turns_by_length(
    serve: Callable[[Any, int], Any], of_users: Any, lengths: jax.Array, widest: int
) -> Any:
    """Serves users of like lengths together, padded to one of `widths_of` T.

    On CPUs, where time goes with the places that are computed; elsewhere, and few users, all at
    once.

    Args:
      serve: (a tree of arrays [n, ...], the width that holds their histories) to such a tree.
      of_users: a tree of arrays [B, ...].
      lengths: int32[B], of their histories.
      widest: T.

    Returns:
      What `serve` makes, arrays [B, ...].
    """
    if jax.default_backend() != "cpu" or len(lengths) <= ALIKE:
        return serve(of_users, widest)
    widths = widths_of(widest)

    def at(width: int) -> Callable[[Any], Any]:
        return lambda users: serve(users, width)

    def turn(part: tuple[Any, jax.Array]) -> Any:
        users, longest = part[0], jnp.max(part[1])
        which = jnp.searchsorted(jnp.asarray(widths), longest)
        return jax.lax.switch(which, [at(width) for width in widths], users)

    order = jnp.argsort(lengths)
    found = in_turns(turn, jax.tree.map(lambda a: a[order], (of_users, lengths)), ALIKE)
    back = jnp.argsort(order)
    return jax.tree.map(lambda a: a[back], found)


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
