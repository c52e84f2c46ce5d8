"""S2: the best items under S1 ranked again with the dense term (design, part 5).

    S2(s, i) = S1(s, i) + <s, V z_i + u_i> + k_z <p, z_i> + sum_m k_m alpha~[i, m] <p_m, e[i, m]>
             + rho [i in the history],      z_i = (1 + gate) * sum_m alpha~[i, m] h[i, m] .

alpha~ depends on the user's own weights, so no table of item vectors is kept; as z is linear in h,
all this is sum_m alpha~[i, m] (<(1 + gate) * (V^T s + k_z p), h[i, m]> + <k_m p_m, e[i, m]>): one
product with h and e side by side. Of a large catalogue only the R items that S1 has found are
looked up; of a small one all are scored for many users, which is faster.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import PRECISION, DenseQuery
from semid_jax.decode.topk import top_k_ties
from semid_jax.turns import cached_turns

# Up to so many items in the catalogue per item found, all are scored; for few users the product is
# slow, and the bound is so much lower per user. With 12,000 items, 500 found and M = 2 scoring all
# takes 22 ms for 256 users where looking up takes 41 ms, and 11 ms for one where that takes 0.25
# (two cores).
WHOLE, WHOLE_PER_USER = 40, 1.5


@struct.dataclass
class DenseItems:
    """The catalogue's side of the dense term.

    Attributes:
      content: float32[N + 1, M, D_z + D_e], h and e of the items, see `ItemViews`.
      mask: bool[N + 1, M].
      free: float32[N + 1, D], u; None without.
      repeat: rho, float32[].
    """

    content: jax.Array
    mask: jax.Array
    free: jax.Array | None
    repeat: jax.Array


def dense_scores(items: DenseItems, query: DenseQuery, found: jax.Array) -> jax.Array:
    """The dense term of items found for each user.

    Args:
      items: the catalogue.
      query: B users.
      found: int32[B, R].

    Returns:
      float32[B, R].
    """
    B, R = found.shape
    if len(items.mask) <= R * min(WHOLE, WHOLE_PER_USER * B):
        scores = jnp.take_along_axis(_scores_of_all(items, query), found, axis=1)
    else:
        scores = _scores_of_found(items, query, found)
    again = jnp.any(found[:, :, None] == query.history[:, None, :], axis=2)
    return scores + items.repeat * again


def _scores_of_found(items: DenseItems, query: DenseQuery, found: jax.Array) -> jax.Array:
    """float32[B, R]: what was found is looked up, in turns of some users."""
    content = items.content.reshape(len(items.mask), -1)
    product = functools.partial(jnp.einsum, "brf,bf->br", precision=PRECISION)

    def serve(users: tuple[jax.Array, ...]) -> jax.Array:
        asked, alpha, state, rows = users
        weight = product(items.mask[rows].astype(asked.dtype), alpha)
        scores = product(content[rows], asked) / jnp.maximum(weight, 1e-6)
        return scores if items.free is None else scores + product(items.free[rows], state)

    each = found.shape[1] * content.shape[1] * content.dtype.itemsize
    return cached_turns(serve, (_weighted(query), query.alpha, query.state, found), each)


def _scores_of_all(items: DenseItems, query: DenseQuery) -> jax.Array:
    """float32[B, N + 1]: a product of matrices."""
    content = items.content.reshape(len(items.mask), -1)
    weight = jnp.dot(query.alpha, items.mask.T.astype(content.dtype), precision=PRECISION)
    scores = jnp.dot(_weighted(query), content.T, precision=PRECISION) / jnp.maximum(weight, 1e-6)
    if items.free is not None:
        scores = scores + jnp.dot(query.state, items.free.T, precision=PRECISION)
    return scores


def _weighted(query: DenseQuery) -> jax.Array:
    """float32[B, M 2 D_z]: what is asked of h and e of all modalities side by side, by weight."""
    return (query.alpha[..., None] * query.content).reshape(len(query.alpha), -1)


@functools.partial(jax.jit, static_argnames=("k",))
def rescore(items: DenseItems, query: DenseQuery | None, found: Retrieved, k: int) -> Retrieved:
    """Ranks what a search under S1 has found by S2.

    Args:
      items: the catalogue.
      query: of the same users; None, of a model without a dense term, is refused.
      found: R items per user.
      k: items returned, at most R.

    Returns:
      items, S2 and the number of entries that were scored under S1.
    """
    if query is None:
        raise ValueError("a query without a dense part cannot be rescored")
    scores = found.scores + dense_scores(items, query, found.items)
    best, scores = top_k_ties(scores, found.items, k)
    return Retrieved(best, scores, found.scored)
