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
TILE = 32

# (shared, rows [n, ...], other rows [n, ...]) -> the n rows' losses, float32[n].
Loss = Callable[[Any, Any, Any], jax.Array]
# (shared, constants, rows, other rows) -> the n rows' losses and a tree of what is reported.
Losses = Callable[[Any, Any, Any, Any], tuple[jax.Array, Any]]


def chunk_rows(floats: int, n: int) -> int:
    """How many of n positions a chunk holds, if one position makes so many floats."""
    most = FLOATS.get(jax.default_backend(), FLOATS["other"]) // floats
    # Products are cut into tiles of rows; parts of one take as long as the whole.
    return max(1, min(most - most % TILE if most > TILE else most, n))


def chunked_loss(
    loss: Loss, rows: int, shared: Any, states: jax.Array, others: Any, weight: jax.Array
) -> jax.Array:
    """Sum over positions of weight x loss(shared, states, others), see `chunked_losses`."""

    def losses(shared: Any, _: None, states: jax.Array, others: Any) -> tuple[jax.Array, None]:
        return loss(shared, states, others), None

    total: jax.Array = chunked_losses(losses, rows, shared, None, states, others, weight)[0]
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def chunked_losses(
    losses: Losses,
    rows: int,
    shared: Any,
    constants: Any,
    states: Any,
    others: Any,
    weight: jax.Array,
) -> tuple[jax.Array, Any]:
    """Sums over positions of weight x losses(shared, constants, states, others).

    The first sum is differentiable in `shared` and `states`, what is reported is not.

    Args:
      losses: of some positions; a function that closes over no traced value.
      rows: positions of a chunk, see `chunk_rows`.
      shared: a tree of arrays that all positions read.
      constants: another, without gradients.
      states: a tree of arrays float32[n, ...].
      others: a tree of arrays [n, ...] that need no gradient.
      weight: float32[n], 0 where a position bears no loss.

    Returns:
      float32[], and a tree of the like.
    """
    return _forward(losses, rows, shared, constants, states, others, weight)[0]


def _forward(
    losses: Losses,
    rows: int,
    shared: Any,
    constants: Any,
    states: Any,
    others: Any,
    weight: jax.Array,
) -> tuple[tuple[jax.Array, Any], tuple[Any, Any]]:
    states, others, weight = jax.tree.map(jnp.asarray, (states, others, weight))
    n = len(weight)
    bears = weight != 0
    first = jnp.argsort(~bears, stable=True)  # the positions that bear loss first
    first = jnp.pad(first, (0, -n % rows))
    chunks = (jnp.sum(bears) + rows - 1) // rows

    def total(shared: Any, states: Any, others: Any, weight: jax.Array) -> tuple[jax.Array, Any]:
        made, reported = losses(shared, constants, states, others)

        def weighed(a: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(weight != 0, a, 0.0) * weight)

        return weighed(made), jax.tree.map(weighed, reported)

    gradient = jax.value_and_grad(total, (0, 1), has_aux=True)

    def chunk(at: jax.Array) -> tuple[jax.Array, Any, Any, jax.Array]:
        here = jax.lax.dynamic_slice_in_dim(first, at * rows, rows)
        w = jnp.where(at * rows + jnp.arange(rows) < n, weight[here], 0.0)
        part, other = jax.tree.map(lambda a: a[here], (states, others))
        sums, (of_shared, of_states) = gradient(shared, part, other, w)
        return here, sums, of_shared, of_states

    def body(at: jax.Array, made: tuple[Any, Any, Any]) -> Any:
        sums, of_shared, of_states = made
        here, more, g_shared, g_states = chunk(at)
        sums, of_shared = jax.tree.map(jnp.add, (sums, of_shared), (more, g_shared))
        return sums, of_shared, jax.tree.map(lambda a, g: a.at[here].add(g), of_states, g_states)

    sums = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(chunk, 0)[1])
    start = sums, *jax.tree.map(jnp.zeros_like, (shared, states))
    sums, of_shared, of_states = jax.lax.fori_loop(0, chunks, body, start)
    return sums, (of_shared, of_states)


def _backward(
    losses: Losses, rows: int, gradients: tuple[Any, Any], above: tuple[jax.Array, Any]
) -> tuple[Any, None, Any, None, None]:
    of_shared, of_states = jax.tree.map(lambda g: above[0] * g, gradients)
    return of_shared, None, of_states, None, None


chunked_losses.defvjp(_forward, _backward)
