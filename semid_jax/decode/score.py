"""S1, the one score that training calibrates and every search computes (design, part 5).

    S1(s, i) = <q_c(s), e_c> + sum_j <h_j(s), E[j, f_j]> + b_i

is the inner product of the query q = [q_c ; h_1 ... h_L ; 1] with the item vector
[e_c ; E[1, f_1] ... E[L, f_L] ; b_i]. Its terms take few values, so a query is turned once into
two small tables, coarse [C] and fine [L, K], and an item costs L + 1 look-ups. What e_c and E hold
is the model's affair: HDNAG puts learned embeddings beside the codebook's centroids there.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental.layout import Layout, with_layout_constraint

# Accelerators would otherwise multiply in bfloat16 or TF32, and searches would disagree.
PRECISION = jax.lax.Precision.HIGHEST


@struct.dataclass
class Tables:
    """Embeddings of the codes, the same for every user.

    Attributes:
      coarse: float32[C, D], e_c.
      fine: float32[L, K, d], E[j, v].
    """

    coarse: jax.Array
    fine: jax.Array


@struct.dataclass
class DenseQuery:
    """The users' side of the dense term of S2, see `rescoring`.

    Attributes:
      state: float32[B, D], s.
      content: float32[B, M, 2 D_z], (1 + gate) * V^T s and k_m p_m side by side.
      alpha: float32[B, M], the user's weights.
      history: int32[B, T], the user's items, 0 = none.
    """

    state: jax.Array
    content: jax.Array
    alpha: jax.Array
    history: jax.Array


@struct.dataclass
class Query:
    """A batch of users, ready to be searched for.

    Attributes:
      vector: float32[B, D + L * d + 1], q, the last column being 1.
      coarse: float32[B, C], q's inner product with every e_c.
      fine: float32[B, L, K], q's inner product with every E[j, v].
      archetype: int32[B], whose column of IDs the user sees.
      dense: what the dense term of S2 asks for; None where S1 is all there is.
    """

    vector: jax.Array
    coarse: jax.Array
    fine: jax.Array
    archetype: jax.Array
    dense: DenseQuery | None = None


@jax.jit
def make_query(vector: jax.Array, tables: Tables, archetype: jax.Array) -> Query:
    """Turns query vectors into look-up tables.

    Args:
      vector: float32[B, D + L * d + 1], [q_c ; h_1 ... h_L ; 1].
      tables: embeddings of the codes.
      archetype: int32[B].

    Returns:
      The query of every search in this package.
    """
    C, D = tables.coarse.shape
    L, K, d = tables.fine.shape
    chex.assert_shape(vector, (None, D + L * d + 1))
    chex.assert_shape(archetype, (vector.shape[0],))
    heads = vector[:, D : D + L * d].reshape(-1, L, d)
    coarse = jnp.dot(vector[:, :D], tables.coarse.T, precision=PRECISION)
    fine = jnp.einsum("bld,lkd->blk", heads, tables.fine, precision=PRECISION)
    if jax.default_backend() == "cpu":
        # Else XLA keeps the product's users last, and those of all scores that are looked up in it.
        fine = with_layout_constraint(fine, Layout((0, 1, 2)))
    chex.assert_shape(coarse, (None, C))
    chex.assert_shape(fine, (None, L, K))
    return Query(vector=vector, coarse=coarse, fine=fine, archetype=archetype)


def item_vectors(tables: Tables, coarse: jax.Array, fine: jax.Array, bias: jax.Array) -> jax.Array:
    """Vectors whose inner product with q is S1.

    Args:
      tables: embeddings of the codes.
      coarse: int32[n], codes c.
      fine: uint8[n, L], codes f.
      bias: float32[n], b_i.

    Returns:
      float32[n, D + L * d + 1], [e_c ; E[1, f_1] ... E[L, f_L] ; b_i].
    """
    L, _, d = tables.fine.shape
    n = coarse.shape[0]
    chex.assert_shape(fine, (n, L))
    chex.assert_shape(bias, (n,))
    digits = tables.fine[jnp.arange(L), fine.astype(jnp.int32)]
    return jnp.concatenate([tables.coarse[coarse], digits.reshape(n, L * d), bias[:, None]], axis=1)


def score_entries(query: Query, coarse: jax.Array, fine: jax.Array, bias: jax.Array) -> jax.Array:
    """S1 of the same entries for every user.

    The terms are added in the order coarse, digit 0 ... L - 1, bias, here and in
    `score_gathered`, so that both give the same float for the same entry.

    Args:
      query: B users.
      coarse: int32[n].
      fine: uint8[n, L].
      bias: float32[n].

    Returns:
      float32[B, n].
    """
    L = query.fine.shape[1]
    n = coarse.shape[0]
    chex.assert_shape(fine, (n, L))
    chex.assert_shape(bias, (n,))
    score = jnp.take(query.coarse, coarse, axis=1, mode="clip")
    for j in range(L):
        digit = fine[:, j].astype(jnp.int32)
        score = score + jnp.take(query.fine[:, j], digit, axis=1, mode="clip")
    return score + bias


def score_gathered(query: Query, coarse: jax.Array, fine: jax.Array, bias: jax.Array) -> jax.Array:
    """S1 of each user's own entries.

    Args:
      query: B users.
      coarse: int32[B, n].
      fine: uint8[B, n, L].
      bias: float32[B, n].

    Returns:
      float32[B, n].
    """
    B, L, _ = query.fine.shape
    n = coarse.shape[1]
    chex.assert_shape(coarse, (B, n))
    chex.assert_shape(fine, (B, n, L))
    chex.assert_shape(bias, (B, n))
    score = jnp.take_along_axis(query.coarse, coarse, axis=1, mode="clip")
    for j in range(L):
        digit = fine[:, :, j].astype(jnp.int32)
        score = score + jnp.take_along_axis(query.fine[:, j], digit, axis=1, mode="clip")
    return score + bias
