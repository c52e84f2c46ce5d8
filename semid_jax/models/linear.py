"""Matrix products whose gradients are fast on a CPU.

The gradient of x @ w in w sums over all leading axes of x. Over one axis it is a plain matrix
product; over two XLA's CPU compiler transposes a factor, and does it inside the loop that computes
it: a feed-forward layer (128 x 32 rows, D = 128) takes 50 ms instead of 12, a whole trunk a fifth
longer. So all leading axes are made one before the product.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dense(nn.Dense):
    """flax's Dense, the leading axes made one; the parameters are the same."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """float[..., I] to float[..., O]."""
        rows: jax.Array = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return rows.reshape(*inputs.shape[:-1], self.features)


def multiply(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w, the leading axes made one: float[..., I] and float[I, O] to float[..., O]."""
    return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], w.shape[1])


def multiply_each(x: jax.Array, w: jax.Array) -> jax.Array:
    """x[..., j, :] @ w[j].T for every j: float[..., L, D], float[L, K, D] to float[..., L, K]."""
    return jnp.stack([multiply(x[..., j, :], w[j].T) for j in range(len(w))], axis=-2)
