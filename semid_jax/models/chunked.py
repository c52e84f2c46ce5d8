"""A loss over many positions, a chunk at a time, with its gradient taken on the way.

What lies between a position's state and its loss can be far larger than both: the scores of all
items, the logits of all digits. Made for all positions at once it is the largest array of a step
and is read from memory several times. Here a chunk of positions is taken through the loss and back
while it lies in the cache, and nothing of it is kept but the gradients. Positions that bear no
loss, padding or unmasked places, are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

FLOATS = {"cpu": 2**21, "other": 2**26}  # of a chunk's largest array: 8 MiB fit a CPU's cache

# (shared, rows [n, ...], other rows [n, ...]) -> the n rows' losses, float32[n].
Loss = Callable[[Any, jax.Array, Any], jax.Array]


def chunk_rows(floats: int, n: int) -> int:
    """How many of n positions a chunk holds, if one position makes so many floats."""
    most = FLOATS.get(jax.default_backend(), FLOATS["other"])
    return max(1, min(most // floats, n))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def chunked_loss(
    loss: Loss, rows: int, shared: Any, states: jax.Array, others: Any, weight: jax.Array
) -> jax.Array:
    """Sum over positions of weight x loss(shared, states, others).

    Differentiable in `shared` and `states`.

    Args:
      loss: of some positions; a function that closes over no traced value.
      rows: positions of a chunk, see `chunk_rows`.
      shared: a tree of arrays that all positions read.
      states: float32[n, ...].
      others: a tree of arrays [n, ...] that need no gradient.
      weight: float32[n], 0 where a position bears no loss.

    Returns:
      float32[].
    """
    return _forward(loss, rows, shared, states, others, weight)[0]


def _forward(
    loss: Loss, rows: int, shared: Any, states: jax.Array, others: Any, weight: jax.Array
) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    n = len(states)
    bears = weight != 0
    first = jnp.argsort(~bears, stable=True)  # the positions that bear loss first
    first = jnp.pad(first, (0, -n % rows))
    chunks = (jnp.sum(bears) + rows - 1) // rows

    def total(shared: Any, states: jax.Array, others: Any, weight: jax.Array) -> jax.Array:
        losses = loss(shared, states, others)
        return jnp.sum(jnp.where(weight != 0, losses, 0.0) * weight)

    def body(at: jax.Array, made: tuple[jax.Array, Any, jax.Array]) -> Any:
        sum_, of_shared, of_states = made
        here = jax.lax.dynamic_slice_in_dim(first, at * rows, rows)
        w = jnp.where(at * rows + jnp.arange(rows) < n, weight[here], 0.0)
        part = jax.tree.map(lambda a: a[here], others)
        value, (g_shared, g_states) = jax.value_and_grad(total, (0, 1))(
            shared, states[here], part, w
        )
        of_shared = jax.tree.map(jnp.add, of_shared, g_shared)
        return sum_ + value, of_shared, of_states.at[here].add(g_states)

    start = jnp.zeros(()), jax.tree.map(jnp.zeros_like, shared), jnp.zeros_like(states)
    sum_, of_shared, of_states = jax.lax.fori_loop(0, chunks, body, start)
    return sum_, (of_shared, of_states)


def _backward(
    loss: Loss, rows: int, gradients: tuple[Any, jax.Array], above: jax.Array
) -> tuple[Any, jax.Array, None, None]:
    of_shared, of_states = gradients
    return jax.tree.map(lambda g: above * g, of_shared), above * of_states, None, None


chunked_loss.defvjp(_forward, _backward)
