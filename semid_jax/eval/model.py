"""Runs a trained HDNAG over users: read side and query."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from semid_jax.decode.index import Index
from semid_jax.decode.score import Query, Tables, make_query
from semid_jax.eval.searching import Queries
from semid_jax.eval.users import BATCH, Users, encode_users
from semid_jax.models.hdnag import Generator, item_bias, query_vector
from semid_jax.models.trunk import last_of


@dataclasses.dataclass(frozen=True)
class ReadSide(Users):
    """Users as HDNAG reads them: their histories in semantic IDs.

    Sorted by archetype, so that searches can group them, and then by length, so that batches are
    padded little.

    Attributes:
      coarse: int32[U, T], read-side codes.
      fine: uint8[U, T, L].
      archetype: int32[U], the write side's column.
    """

    coarse: np.ndarray
    fine: np.ndarray
    archetype: np.ndarray


def make_read_side(
    users: np.ndarray,
    history: np.ndarray,
    targets: np.ndarray,
    archetype: np.ndarray,
    coarse: np.ndarray,
    fine: np.ndarray,
) -> ReadSide:
    """Codes of each user's history in the column of the user's archetype.

    Args:
      users: int64[U].
      history: int32[U, T], right padded.
      targets: int32[U].
      archetype: int32[U].
      coarse: int32[A, N + 1], the catalogue's codes.
      fine: uint8[A, N + 1, L].
    """
    order = np.lexsort((users, (history > 0).sum(axis=1), archetype))
    history, archetype = history[order], archetype[order]
    column = archetype[:, None]
    return ReadSide(
        users=users[order],
        history=history,
        targets=targets[order],
        coarse=coarse[column, history],
        fine=fine[column, history],
        archetype=archetype,
    )


def with_model(index: Index, generator: Generator, params: Any) -> Index:
    """The index of a catalogue under a model's parameters; its lists stay."""
    tables = generator.apply(params, method=Generator.tables)
    bias = item_bias(tables, index.entry_coarse, index.entry_fine)
    found = Tables(tables.coarse, tables.fine)
    return dataclasses.replace(index, tables=found, entry_bias=bias)


@functools.partial(jax.jit, static_argnames=("generator",))
def user_vector(
    generator: Generator, params: Any, coarse: jax.Array, fine: jax.Array, mask: jax.Array
) -> jax.Array:
    """The query vector of S1: one pass of the trunk, coarse and all fine digits.

    Args:
      generator: module.
      params: parameters.
      coarse: int32[B, T].
      fine: uint8[B, T, L].
      mask: bool[B, T]; at least one True per row.

    Returns:
      float32[B, D + L d + 1], see `query_vector`.
    """
    with jax.named_scope("trunk"):
        states = generator.apply(params, coarse, fine, mask, method=Generator.states)
        state = last_of(states, mask)
    with jax.named_scope("heads"):
        return query_vector(
            generator.apply(params, state, method=Generator.coarse_query),
            generator.apply(params, state, method=Generator.fine_query),
            params["params"]["coarse_weight"],
        )


def user_query(
    generator: Generator,
    params: Any,
    tables: Tables,
    coarse: jax.Array,
    fine: jax.Array,
    mask: jax.Array,
    archetype: jax.Array,
) -> Query:
    """What a user asks of the index: `user_vector` met with the index's tables.

    Args:
      generator: module.
      params: parameters.
      tables: code embeddings of the index.
      coarse: int32[B, T].
      fine: uint8[B, T, L].
      mask: bool[B, T]; at least one True per row.
      archetype: int32[B].
    """
    return make_query(user_vector(generator, params, coarse, fine, mask), tables, archetype)


def hdnag_queries(
    generator: Generator,
    params: Any,
    index: Index,
    side: ReadSide,
    batch: int = BATCH,
    shows_bar: bool = True,
) -> Queries:
    """Queries of all users of a read side; the trunk runs once per user, here.

    Args:
      generator: module.
      params: parameters.
      index: with the model's tables.
      side: the users.
      batch: users of a query.
      shows_bar: False where the trunk's progress bar would lie inside another one's line.
    """

    def encode(part: ReadSide, width: int) -> jax.Array:
        codes = part.coarse[:, :width], part.fine[:, :width]
        return user_vector(generator, params, *codes, part.history[:, :width] > 0)

    def to_query(vectors: np.ndarray, archetype: np.ndarray) -> Query:
        return make_query(vectors, index.tables, archetype)

    return Queries(encode_users(side, encode, shows_bar), side.archetype, to_query, batch)
