"""Runs a trained generator over users: read side, query, search, ranks."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from semid_jax.decode.exact import exact_rank
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, Tables, make_query
from semid_jax.eval.users import BATCH, Lists, Users, encode_users, pad_rows
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


_make_query = jax.jit(make_query)


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
    return _make_query(user_vector(generator, params, coarse, fine, mask), tables, archetype)


class Queries:
    """Queries of all users of a read side, batch by batch; the trunk runs once per user."""

    def __init__(
        self,
        generator: Generator,
        params: Any,
        index: Index,
        side: ReadSide,
        batch: int = BATCH,
        shows_bar: bool = True,
    ) -> None:
        """Runs the trunk, under a progress bar unless it runs inside another one's."""
        self._tables = index.tables
        self._archetype = side.archetype
        self._batch = min(batch, max(len(side), 1))

        def encode(part: ReadSide, width: int) -> jax.Array:
            codes = part.coarse[:, :width], part.fine[:, :width]
            return user_vector(generator, params, *codes, part.history[:, :width] > 0)

        self._vectors = encode_users(side, encode, shows_bar)

    def __len__(self) -> int:
        return -(-len(self._vectors) // self._batch)

    def __iter__(self) -> Any:
        """Yields (Query, slice of the users, number of real rows)."""
        users = len(self._vectors)
        for at in range(0, users, self._batch):
            rows = slice(at, min(at + self._batch, users))
            vectors = pad_rows(self._vectors[rows], self._batch)
            archetype = pad_rows(self._archetype[rows], self._batch)
            yield _make_query(vectors, self._tables, archetype), rows, rows.stop - rows.start


def exact_ranks(queries: Queries, index: Index, side: ReadSide, seen: np.ndarray | None) -> Any:
    """Ranks of the targets under exact S1.

    Args:
      queries: of the users.
      index: with the model's tables.
      side: the users.
      seen: int32[U, H], items to leave out for the second result, padded by 0, or None.

    Returns:
      int32[U] ranks from 1, and ranks without the seen items.
    """
    ranks = np.zeros(len(side), np.int32)
    without = np.zeros(len(side), np.int32)
    for query, rows, n in queries:
        size = len(query.archetype)
        exclude = None if seen is None else pad_rows(seen[rows], size)
        first, second = exact_rank(index, query, pad_rows(side.targets[rows], size), exclude)
        ranks[rows], without[rows] = np.asarray(first)[:n], np.asarray(second)[:n]
    return ranks, without


Search = Callable[[Query], Retrieved]


def run_search(queries: Queries, search: Search, name: str) -> Lists:
    """Searches for all users; the time is that of the search alone, after one warm-up call.

    Args:
      queries: of the users.
      search: one retrieval.
      name: for the progress bar.
    """
    items, scores, scored, seconds, users = [], [], [], 0.0, 0
    for number, (query, _, n) in enumerate(
        tqdm(queries, desc=name, unit="batch", mininterval=2.0, leave=False)
    ):
        jax.block_until_ready(query)
        if number == 0:
            jax.block_until_ready(search(query))
        started = time.perf_counter()
        found = jax.block_until_ready(search(query))
        seconds += time.perf_counter() - started
        users += len(query.archetype)
        items.append(np.asarray(found.items)[:n])
        scores.append(np.asarray(found.scores)[:n])
        scored.append(np.asarray(found.scored)[:n])
    return Lists(
        np.concatenate(items),
        np.concatenate(scores),
        np.concatenate(scored),
        1000 * seconds / max(users, 1),
    )
