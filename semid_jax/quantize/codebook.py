"""The codebook: coarse cells and fine digits, and how vectors and IDs turn into each other."""

from __future__ import annotations

from collections.abc import Mapping

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.quantize import nearest


@flax.struct.dataclass
class Codebook:
    """A two-level quantiser of vectors in R^D.

    Attributes:
      coarse: f32[C, D], the cells' centroids.
      rotation: f32[D, D], orthogonal, applied as z @ rotation before the digits (identity under
        "residual").
      fine: f32[L, K, D // L] codewords of each sub-space ("hierarchical"), or f32[L, K, D]
        codewords of each level ("residual").
      kind: "hierarchical" or "residual".
      absolute: whether the digits describe z itself rather than z minus its cell's centroid.
    """

    coarse: jax.Array
    rotation: jax.Array
    fine: jax.Array
    kind: str = flax.struct.field(pytree_node=False, default="hierarchical")
    absolute: bool = flax.struct.field(pytree_node=False, default=True)

    @property
    def cells(self) -> int:
        """C."""
        return self.coarse.shape[0]

    @property
    def digits(self) -> int:
        """L."""
        return self.fine.shape[0]

    @property
    def codewords(self) -> int:
        """K."""
        return self.fine.shape[1]

    @property
    def width(self) -> int:
        """D."""
        return self.coarse.shape[1]


@jax.jit
def encode(codebook: Codebook, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ID of each vector by distance alone (lists are balanced in `fit`, not here).

    Args:
      codebook: the codebook.
      z: f32[n, D].

    Returns:
      (coarse int32[n], fine uint8[n, L]).
    """
    coarse = encode_coarse(codebook, z)
    return coarse, encode_fine(codebook, z, coarse)


@jax.jit
def encode_coarse(codebook: Codebook, z: jax.Array) -> jax.Array:
    """The nearest cell of each vector.

    Args:
      codebook: the codebook.
      z: f32[n, D].

    Returns:
      int32[n].
    """
    z = jnp.asarray(z)
    chex.assert_shape(z, (None, codebook.width))
    return nearest.nearest_chunked(z[:, None, :], codebook.coarse[None])[0][:, 0]


@jax.jit
def encode_fine(codebook: Codebook, z: jax.Array, coarse: jax.Array) -> jax.Array:
    """The fine codes of vectors whose cells are given.

    Args:
      codebook: the codebook.
      z: f32[n, D].
      coarse: int32[n].

    Returns:
      uint8[n, L].
    """
    z, coarse = jnp.asarray(z), jnp.asarray(coarse)
    chex.assert_shape(z, (None, codebook.width))
    chex.assert_shape(coarse, (z.shape[0],))
    left = z if codebook.absolute else z - codebook.coarse[coarse]
    if codebook.kind == "hierarchical":
        parts = split(left @ codebook.rotation, codebook.digits)
        return nearest.nearest_chunked(parts, codebook.fine)[0].astype(jnp.uint8)

    def level(left: jax.Array, codewords: jax.Array) -> tuple[jax.Array, jax.Array]:
        code = nearest.nearest_chunked(left[:, None, :], codewords[None])[0][:, 0]
        return left - codewords[code], code

    return jax.lax.scan(level, left, codebook.fine)[1].T.astype(jnp.uint8)


@jax.jit
def decode(codebook: Codebook, coarse: jax.Array, fine: jax.Array) -> jax.Array:
    """The vectors that IDs stand for.

    Args:
      codebook: the codebook.
      coarse: int32[n].
      fine: uint8[n, L or more]; digits behind those of the codebook say nothing of z.

    Returns:
      f32[n, D].
    """
    coarse, fine = jnp.asarray(coarse), jnp.asarray(fine)[:, : codebook.digits]
    chex.assert_rank(coarse, 1)
    chex.assert_shape(fine, (coarse.shape[0], codebook.digits))
    words = codebook.fine[jnp.arange(codebook.digits), fine.astype(jnp.int32)]
    if codebook.kind == "hierarchical":
        detail = words.reshape(len(coarse), codebook.width) @ codebook.rotation.T
    else:
        detail = jnp.sum(words, axis=1)
    return detail if codebook.absolute else codebook.coarse[coarse] + detail


def split(z: jax.Array, digits: int) -> jax.Array:
    """Cuts vectors into the sub-spaces of the digits.

    Args:
      z: f32[n, D].
      digits: L, divides D.

    Returns:
      f32[n, L, D // L].
    """
    return z.reshape(z.shape[0], digits, z.shape[1] // digits)


def to_arrays(codebook: Codebook) -> dict[str, np.ndarray]:
    """The codebook as plain arrays, for an artefact directory.

    Args:
      codebook: the codebook.

    Returns:
      Name -> array; `flags` int32[2] is (kind is residual, absolute).
    """
    return {
        "coarse": np.asarray(codebook.coarse),
        "rotation": np.asarray(codebook.rotation),
        "fine": np.asarray(codebook.fine),
        "flags": np.array([codebook.kind == "residual", codebook.absolute], dtype=np.int32),
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Codebook:
    """The inverse of `to_arrays`.

    Args:
      arrays: name -> array.

    Returns:
      The codebook.
    """
    residual, absolute = (bool(flag) for flag in arrays["flags"])
    return Codebook(
        coarse=jnp.asarray(arrays["coarse"]),
        rotation=jnp.asarray(arrays["rotation"]),
        fine=jnp.asarray(arrays["fine"]),
        kind="residual" if residual else "hierarchical",
        absolute=absolute,
    )
