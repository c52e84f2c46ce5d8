"""Runs a trained HDNAG over users: read side and query."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.decode.index import Index, with_scores
from semid_jax.decode.rescoring import DenseItems, DenseQuery
from semid_jax.decode.score import PRECISION, Query, Tables, make_query
from semid_jax.eval.searching import Queries
from semid_jax.eval.users import BATCH, Users, encode_users
from semid_jax.models.codes import Centroids
from semid_jax.models.fusion import ItemViews, ask, see
from semid_jax.models.hdnag import Generator, last_interest, query_vector
from semid_jax.models.rows import Rows, every_place, without_padding


@struct.dataclass
class Tastes:
    """What users are after, which likeness in S2 is measured from.

    Attributes:
      interest: float32[B, D_z], p, as S1 has it.
      by_modality: float32[B, M, D_z], p_m.
    """

    interest: jax.Array
    by_modality: jax.Array


@struct.dataclass
class Model:
    """A generator with its parameters, and what it reads items by.

    Attributes:
      params: of the generator.
      views: of the catalogue.
      centroids: of the codebook.
      generator: module.
    """

    params: Any
    views: ItemViews
    centroids: Centroids
    generator: Generator = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class ReadSide(Users):
    """Users as HDNAG reads them: their histories in semantic IDs.

    Sorted by archetype, so that searches can group them, and then by length, so that batches are
    padded little.

    Attributes:
      coarse: int32[U, T], read-side codes.
      fine: uint8[U, T, L].
      archetype: int32[U], the write side's column.
      alpha: float32[U, M], the user's own weights.
      belief: float16[U, M, K], what PMAT believes of the user.
    """

    coarse: np.ndarray
    fine: np.ndarray
    archetype: np.ndarray
    alpha: np.ndarray
    belief: np.ndarray


def make_read_side(
    users: np.ndarray,
    history: np.ndarray,
    targets: np.ndarray,
    archetype: np.ndarray,
    alpha: np.ndarray,
    belief: np.ndarray,
    coarse: np.ndarray,
    fine: np.ndarray,
) -> ReadSide:
    """Codes of each user's history in the column of the user's archetype.

    Args:
      users: int64[U].
      history: int32[U, T], right padded.
      targets: int32[U].
      archetype: int32[U].
      alpha: float32[U, M].
      belief: float16[U, M, K].
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
        alpha=alpha[order],
        belief=belief[order],
    )


def with_model(index: Index, model: Model, popularity: jax.Array) -> Index:
    """The index of a catalogue under a model's parameters; its lists stay.

    Args:
      index: of the catalogue.
      model: whose tables and biases it gets.
      popularity: float32[N + 1], pop of the items.
    """
    call = functools.partial(model.generator.apply, model.params)
    tables = call(model.centroids, method=Generator.tables)
    entries = index.entry_coarse, index.entry_fine, popularity[index.entry_item]
    bias = call(*entries, method=Generator.item_bias)
    return with_scores(index, Tables(tables.coarse, tables.fine), bias)


def dense_items(model: Model) -> DenseItems | None:
    """The catalogue's side of the dense term under a model's parameters; None without one."""
    generator, params, views = model.generator, model.params, model.views
    if not generator.has_dense:
        return None
    free = params["params"]["free"] if generator.has_free else None
    repeat = generator.apply(params, method=Generator.repeat)
    return DenseItems(views.content, views.mask, free, repeat)


@jax.jit
def user_vectors(
    model: Model,
    coarse: jax.Array,
    fine: jax.Array,
    history: jax.Array,
    archetype: jax.Array,
    belief: jax.Array,
    rows: Rows | None = None,
) -> tuple[jax.Array, jax.Array, Tastes | None]:
    """What is asked for a user: one pass of the trunk, coarse and all fine digits.

    Args:
      model: with its parameters.
      coarse: int32[B, T].
      fine: uint8[B, T, L].
      history: int32[B, T], right padded; at least one item per row.
      archetype: int32[B].
      belief: float16[B, M, K].
      rows: the places that are computed; all of them if not given.

    Returns:
      The query vector of S1, float32[B, F], see `query_vector`; the state, float32[B, D]; tastes,
      None where S1 is all there is.
    """
    generator, views, mask = model.generator, model.views, history > 0
    rows = every_place(mask) if rows is None else rows
    call = functools.partial(generator.apply, model.params)
    items, sees_as = rows.pack(history), jnp.broadcast_to(archetype[:, None], history.shape)
    z = see(views, rows.pack(sees_as), items)
    with jax.named_scope("trunk"):
        x = call(rows.pack(coarse), rows.pack(fine), z, items, method=Generator.read)
        state = call(x, rows, method=Generator.last)
    with jax.named_scope("heads"):
        if generator.config.belief:
            interest = ask(belief, views.archetypes.alpha[archetype], views.table)
        else:
            interest = last_interest(rows.unpack(z), mask, generator.config.fading)
        query = call(model.centroids, state, interest, method=Generator.query)
        tastes = None
        if generator.has_dense:
            encoded = rows.unpack(views.e(items))
            by_modality = last_interest(encoded, mask, generator.config.fading)
            tastes = Tastes(interest, by_modality)
    return query_vector(*query), state, tastes


def user_query(
    model: Model,
    tables: Tables,
    coarse: jax.Array,
    fine: jax.Array,
    history: jax.Array,
    archetype: jax.Array,
    belief: jax.Array,
    alpha: jax.Array,
) -> Query:
    """What a user asks of the index and, where the model has S2, of the dense term.

    `user_vectors` of users in any order, met with the index's tables.

    Args:
      model: with its parameters.
      tables: of the index.
      coarse: int32[B, T].
      fine: uint8[B, T, L].
      history: int32[B, T], right padded; at least one item per row.
      archetype: int32[B].
      belief: float16[B, M, K].
      alpha: float32[B, M], the users' own weights.
    """
    read = functools.partial(user_vectors, model, coarse, fine, history, archetype, belief)
    vectors = without_padding(read, history > 0)
    return _meet(model, tables, vectors, history, archetype, alpha)


def _meet(
    model: Model,
    tables: Tables,
    vectors: tuple[Any, Any, Tastes | None],
    history: Any,
    archetype: Any,
    alpha: Any,
) -> Query:
    """What `user_vectors` has left met with the index's tables, and the dense part beside it."""
    vector, state, tastes = vectors
    query = make_query(vector, tables, archetype)
    if tastes is None:
        return query
    return query.replace(dense=dense_query(model, state, tastes, alpha, archetype, history))


@jax.jit
def dense_query(
    model: Model,
    state: jax.Array,
    tastes: Tastes,
    alpha: jax.Array,
    row: jax.Array,
    history: jax.Array,
) -> DenseQuery:
    """What users ask of the dense term: their own weights, the gate of their archetype.

    Args:
      model: with its parameters.
      state: float32[B, D], s.
      tastes: of B users.
      alpha: float32[B, M].
      row: int32[B], archetypes.
      history: int32[B, T], right padded.
    """
    call = functools.partial(model.generator.apply, model.params)
    asked = jnp.dot(state, model.params["params"]["dense_in"].T, precision=PRECISION)
    asked += call(method=Generator.likeness_of_z) * tastes.interest
    gate = 1.0 + model.views.archetypes.gate[row]
    liked = call(method=Generator.likeness_by)[:, None] * tastes.by_modality
    asked = gate * asked
    asked = jnp.broadcast_to(asked[:, None], (*liked.shape[:2], asked.shape[-1]))
    content = jnp.concatenate([asked, liked], axis=-1)
    return DenseQuery(state, content, alpha, history)


@jax.jit
def normalised(
    query: Query, codewords: jax.Array, condition: jax.Array, weight: jax.Array
) -> Query:
    """The same query, scoring an ID (c, f) by log p(c) + sum_j log p(f_j | c).

    Args:
      query: of S1.
      codewords: float32[L, K, d + d_z], of the index's tables.
      condition: float32[C, L, d].
      weight: w, float32[].
    """
    score = jax.nn.log_softmax(query.coarse / weight)
    for j in range(len(codewords)):
        r = condition[:, j] @ codewords[j, :, : condition.shape[-1]].T
        score -= jax.nn.logsumexp(query.fine[:, None, j] + r, axis=-1)
    return dataclasses.replace(query, coarse=score)


def hdnag_queries(
    model: Model, index: Index, side: ReadSide, batch: int = BATCH, shows_bar: bool = True
) -> Queries:
    """Queries of all users of a read side; the trunk runs once per user, here.

    Args:
      model: with its parameters.
      index: with the model's tables.
      side: the users.
      batch: users of a query.
      shows_bar: False where the trunk's progress bar would lie inside another one's line.
    """
    return queries_of(model, index, side, side_vectors(model, side, shows_bar), batch)


# `user_vectors` of all users of a read side.
SideVectors = tuple[np.ndarray, np.ndarray, Tastes | None]


def side_vectors(model: Model, side: ReadSide, shows_bar: bool = True) -> SideVectors:
    """What is asked for each user: the trunk's part of queries, which S2's scales have no part in.

    Args:
      model: with its parameters.
      side: the users.
      shows_bar: see `hdnag_queries`.
    """

    def encode(part: ReadSide, width: int) -> tuple[jax.Array, jax.Array, Tastes | None]:
        codes = part.coarse[:, :width], part.fine[:, :width]
        return user_vectors(model, *codes, part.history[:, :width], part.archetype, part.belief)

    found: SideVectors = encode_users(side, encode, shows_bar)
    return found


def queries_of(
    model: Model, index: Index, side: ReadSide, vectors: SideVectors, batch: int = BATCH
) -> Queries:
    """Queries of users whom the trunk has read.

    Args:
      model: the same, S2's scales aside.
      index: with the model's tables.
      side: the users.
      vectors: of `side_vectors`.
      batch: users of a query.
    """
    generator, params = model.generator, model.params
    condition = generator.apply(params, model.centroids, method=Generator.tables).condition

    def to_query(users: tuple[Any, ...], archetype: np.ndarray) -> Query:
        vector, state, tastes, alpha, history = users
        of_user = vector, state, tastes
        query = _meet(model, index.tables, of_user, history, archetype, alpha)
        if generator.config.normalised:
            weight = params["params"]["coarse_weight"]
            return normalised(query, index.tables.fine, condition, weight)
        return query

    users = (*vectors, side.alpha, side.history)
    return Queries(users, side.archetype, to_query, batch)
