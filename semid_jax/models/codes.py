"""Codes of an ID as HDNAG has them: what they look up, what they stand for, vectors of items."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.linear import multiply


@struct.dataclass
class Centroids:
    """What an ID's codes stand for in the space of items: the codebook, as S1 uses it.

    Attributes:
      coarse: float32[C, D_z], o_c.
      rotation: float32[D_z, D_z], R.
      fine: float32[L, K, D_z / l], w[j, v] of the first l digits, which describe an archetype's z,
        and zeros of those behind, which all archetypes share; or float32[L, K, D_z], where a digit
        describes all dimensions.
    """

    coarse: jax.Array
    rotation: jax.Array
    fine: jax.Array


@struct.dataclass
class CodeTables:
    """What an ID's codes look up.

    Attributes:
      coarse: float32[C, D + D_z], [e_c ; o_c].
      fine: float32[L, K, d + d_z], [E[j, v] ; w[j, v]], the first part a unit vector.
      condition: float32[C, L, d], G_j e_c, so that r[c, j, v] = <condition[c, j], E[j, v]>.
    """

    coarse: jax.Array
    fine: jax.Array
    condition: jax.Array


@struct.dataclass
class Meaning:
    """What IDs stand for in the space of items, apart from what is learned of them.

    Attributes:
      cell: float32[..., D_z], o_c.
      detail: float32[..., D_z], R^T [w[1, f_1] .. w[L, f_L]].
    """

    cell: jax.Array
    detail: jax.Array


@struct.dataclass
class CodeVectors:
    """Items as S1 meets them: S1 = <s, x> + bias + <p, m>.

    Attributes:
      x: float32[..., D].
      m: float32[..., D_z].
      bias: float32[...].
    """

    x: jax.Array
    m: jax.Array
    bias: jax.Array


def meaning(centroids: Centroids, coarse: jax.Array, fine: jax.Array) -> Meaning:
    """What IDs stand for.

    Args:
      centroids: of the codebook.
      coarse: int32[...].
      fine: uint8[..., L].
    """
    words = centroids.fine[jnp.arange(fine.shape[-1]), fine.astype(jnp.int32)]
    cell = centroids.coarse[coarse]
    if words.shape[-1] == cell.shape[-1]:
        return Meaning(cell, jnp.sum(words, axis=-2))
    own = words[..., : cell.shape[-1] // words.shape[-1], :]
    return Meaning(cell, multiply(own.reshape(*coarse.shape, -1), centroids.rotation.T))
