"""Causal self-attention among the rows of each user, in evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semid_jax.models.rows import SPAN, Rows
from semid_jax.turns import cached_turns


def attend(q: jax.Array, k: jax.Array, v: jax.Array, rows: Rows) -> jax.Array:
    """What each row reads of the rows of its user up to itself.

    Args:
      q: float[n, H, e], scaled.
      k: float[n, H, e].
      v: float[n, H, e].
      rows: whose they are.

    Returns:
      float[n, H, e].
    """
    if rows.place is None:
        return _of_users(q, k, v, rows)
    T = rows.mask.shape[1]
    return _of_spans(q, k, v, rows.place // T, T)


def _of_users(q: jax.Array, k: jax.Array, v: jax.Array, rows: Rows) -> jax.Array:
    """`attend` where all places are rows: T keys for each user's T queries."""
    T = rows.mask.shape[1]
    sees = jnp.tril(jnp.ones((T, T), bool))

    def serve(part: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, k, v = part
        return _mix(q, k, v, sees)

    padded = rows.unpack(q), rows.unpack(k), rows.unpack(v)
    return rows.pack(cached_turns(serve, padded, 4 * q.shape[1] * T**2))


def _of_spans(q: jax.Array, k: jax.Array, v: jax.Array, user: jax.Array, T: int) -> jax.Array:
    """`attend` where items alone are rows: a row's keys are among the T rows up to it.

    Those of a span of rows are read together, whosever they are; `user` int32[n] says.
    """
    span = jnp.arange(len(q)).reshape(-1, SPAN)
    near = span[:, :1] + jnp.arange(1 - T, SPAN)

    def serve(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        row, near = part
        there = jnp.maximum(near, 0)
        same = user[row][..., None] == user[there][:, None]
        past = (near >= 0)[:, None] & (near[:, None] <= row[..., None])
        return _mix(q[row], k[there], v[there], (same & past)[:, None])

    each = 4 * q.shape[1] * SPAN * near.shape[1]
    found: jax.Array = cached_turns(serve, (span, near), each)
    return found.reshape(q.shape)


def _mix(q: jax.Array, k: jax.Array, v: jax.Array, sees: jax.Array) -> jax.Array:
    """Queries float[b, t, H, e], keys and values float[b, s, H, e] to float[b, t, H, e]."""
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)  # as products of matrices
    logits = jnp.einsum("bhte,bhse->bhts", q, k)
    weights = jax.nn.softmax(jnp.where(sees, logits, -1e9), axis=-1)
    return jnp.einsum("bhts,bhse->bhte", weights, v).swapaxes(1, 2)
