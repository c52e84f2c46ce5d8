"""In which numbers the largest products of training are computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.provenance import has_amx
from semid_jax.types import InputError

PRODUCTS = ("float32", "bfloat16", "auto")


def product_dtype(name: str) -> jnp.dtype:
    """The type that factors are rounded to; sums of their products are float32 in any case.

    Args:
      name: of PRODUCTS; "auto" is bfloat16 where the machine multiplies it several times faster:
        accelerators, CPUs with AMX.

    Raises:
      InputError: another name.
    """
    if name not in PRODUCTS:
        raise InputError(f"loss.products: {name!r} is not one of {', '.join(PRODUCTS)}")
    if name == "auto":
        fast = jax.default_backend() != "cpu" or has_amx()
        name = "bfloat16" if fast else "float32"
    return jnp.dtype(name)


def dot(a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """a @ b with both rounded and sums in float32: [..., K] and [K, N] to float32[..., N]."""
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def dot_rows(a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """a @ b.T likewise: [M, K] and [N, K] to float32[M, N]."""
    over_last = (((1,), (1,)), ((), ()))
    a, b = a.astype(dtype), b.astype(dtype)
    made: jax.Array = jax.lax.dot_general(a, b, over_last, preferred_element_type=jnp.float32)
    return made
