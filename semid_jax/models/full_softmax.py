"""Cross-entropy of the right item among all items, and its gradient, in one pass over the scores.

The scores of n positions and N items are the largest array of a sequence model. They are made a
chunk of positions at a time, small enough to stay in the cache; loss and gradient are taken from
the chunk while it is there, and no chunk is made twice or kept. Positions that bear no loss, which
are padding or places that a cloze task has not masked, cost nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

SCORES = {"cpu": 2**21, "other": 2**26}  # of a chunk: 8 MiB fit a CPU's cache


@jax.custom_vjp
def full_softmax_loss(
    states: jax.Array, items: jax.Array, targets: jax.Array, weight: jax.Array
) -> jax.Array:
    """Sum over positions of weight x -log softmax(<state, items>)[target].

    Differentiable in `states` and `items`.

    Args:
      states: float32[n, D].
      items: float32[N + 1, D]; row 0, padding, is no candidate.
      targets: int32[n], 1..N where weight is not zero.
      weight: float32[n], 0 where a position bears no loss.

    Returns:
      float32[].
    """
    return _forward(states, items, targets, weight)[0]


def chunk_rows(n_items: int, n: int) -> int:
    """How many of n positions a chunk holds."""
    scores = SCORES.get(jax.default_backend(), SCORES["other"])
    return max(1, min(scores // n_items, n))


def _forward(
    states: jax.Array, items: jax.Array, targets: jax.Array, weight: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The loss, and its gradients in states and items."""
    n, rows = len(states), chunk_rows(len(items), len(states))
    bears = weight != 0
    first = jnp.argsort(~bears, stable=True)  # the positions that bear loss first
    first = jnp.pad(first, (0, -n % rows))
    chunks = (jnp.sum(bears) + rows - 1) // rows

    def body(
        at: jax.Array, made: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        total, of_states, of_items = made
        here = jax.lax.dynamic_slice_in_dim(first, at * rows, rows)
        w = jnp.where(at * rows + jnp.arange(rows) < n, weight[here], 0.0)
        s, target = states[here], targets[here]
        scores = (s @ items.T).at[:, 0].set(-jnp.inf)
        own = jnp.take_along_axis(scores, target[:, None], axis=1)[:, 0]
        best = jnp.max(scores, axis=1)
        e = jnp.exp(scores - best[:, None])
        z = jnp.sum(e, axis=1)
        total += jnp.sum(jnp.where(w != 0, best + jnp.log(z) - own, 0.0) * w)
        share = (w / z)[:, None]
        of_states = of_states.at[here].add(share * (e @ items) - w[:, None] * items[target])
        of_items = of_items + e.T @ (share * s)
        return total, of_states, of_items

    start = (jnp.zeros(()), jnp.zeros_like(states), jnp.zeros_like(items))
    total, of_states, of_items = jax.lax.fori_loop(0, chunks, body, start)
    return total, (of_states, of_items.at[targets].add(-weight[:, None] * states))


def _backward(
    gradients: tuple[jax.Array, jax.Array], above: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    of_states, of_items = gradients
    return above * of_states, above * of_items, None, None


full_softmax_loss.defvjp(_forward, _backward)
