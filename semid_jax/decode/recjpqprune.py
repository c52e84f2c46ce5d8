"""`recjpqprune`: the exact k best, items visited by their best codes first.

Petrov, Macdonald and Tonellotto, "Efficient Recommendation with Millions of Items by Dynamic
Pruning of Sub-Item Embeddings", SIGIR 2025. Of every place of an ID (the cell, each digit) the
codes are sorted by the user's score. Again and again the best code not yet looked at is taken and
all items that have it are scored; no item that was never met can have more than the sum of the
best codes left, so the search ends when that does not reach the k-th score.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.decode.exact import check_query
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, score_gathered
from semid_jax.decode.sketch import ROUNDING
from semid_jax.decode.topk import top_k_ties


@struct.dataclass
class CodeLists:
    """Who has which code, in compressed rows; place 0 is the cell, place j + 1 digit j.

    Attributes:
      entry: int32[L + 1, n], entries by their code in each place.
      start: int32[L + 1, V + 1], V = max(C, K); code v is entry[j, start[j, v]:start[j, v + 1]].
      highest: float32[], the largest b_i.
      longest: of all lists.
    """

    entry: jax.Array
    start: jax.Array
    highest: jax.Array
    longest: int = struct.field(pytree_node=False)


def build_code_lists(index: Index) -> CodeLists:
    """Sorts the entries by every place of their IDs.

    Args:
      index: the catalogue.
    """
    coarse, fine = np.asarray(index.entry_coarse), np.asarray(index.entry_fine)
    codes = np.concatenate([coarse[None], fine.T.astype(np.int32)])
    values = np.arange(max(index.n_cells, index.tables.fine.shape[1]) + 1)
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    start = np.stack([np.searchsorted(row, values) for row in ordered])
    return CodeLists(
        entry=jnp.asarray(order.astype(np.int32)),
        start=jnp.asarray(start.astype(np.int32)),
        highest=jnp.max(index.entry_bias),
        longest=int(np.diff(start, axis=1).max()),
    )


@functools.partial(jax.jit, static_argnames=("k",))
def retrieve_recjpqprune(index: Index, lists: CodeLists, query: Query, k: int) -> Retrieved:
    """The k best items under S1, the very list of `exact`; users one after another.

    Args:
      index: the catalogue.
      lists: of the index.
      query: B users.
      k: items returned.

    Returns:
      items, scores and the number of entries scored, those met several times counted as often.
    """
    check_query(index, query)
    values = lists.start.shape[1] - 1

    def wide(scores: jax.Array) -> jax.Array:
        short = values - scores.shape[-1]
        blank = ((0, 0),) * (scores.ndim - 1) + ((0, short),)
        return jnp.pad(scores, blank, constant_values=-jnp.inf)

    table = jnp.concatenate([wide(query.coarse)[:, None], wide(query.fine)], axis=1)
    of_users = table, query.coarse, query.fine, query.archetype

    def search(user: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _search(index, lists, k, *user)

    items, scores, scored = jax.lax.map(search, of_users)
    return Retrieved(items, scores, scored)


# Items and scores of the k best so far, entries scored, codes taken in every place.
State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _search(
    index: Index,
    lists: CodeLists,
    k: int,
    table: jax.Array,
    coarse: jax.Array,
    fine: jax.Array,
    archetype: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One user: items int32[k], scores float32[k], int32[]; `table` is float32[L + 1, V]."""
    places = len(table)
    ranked, code = jax.lax.top_k(table, table.shape[1])
    ranked = jnp.pad(ranked, ((0, 0), (0, 1)), constant_values=-jnp.inf)
    one = Query(jnp.zeros((1, 1)), coarse[None], fine[None], archetype[None])
    finite = jnp.where(jnp.isfinite(table), jnp.abs(table), 0.0)
    slack = ROUNDING * (jnp.sum(jnp.max(finite, axis=1)) + jnp.abs(lists.highest))
    slot = jnp.arange(lists.longest)

    def heads(taken: jax.Array) -> jax.Array:
        return ranked[jnp.arange(places), taken]

    def unfinished(state: State) -> jax.Array:
        _, scores, _, taken = state
        # Where a place has no code left every item was met: its head is -inf, and so is the sum.
        bound = jnp.sum(heads(taken)) + lists.highest + slack
        return (bound >= scores[-1]) & (bound > -jnp.inf)

    def step(state: State) -> State:
        items, scores, scored, taken = state
        place = jnp.argmax(heads(taken))
        value = code[place, taken[place]]
        first, after = lists.start[place, value], lists.start[place, value + 1]
        there = first + slot < after
        entry = lists.entry[place, jnp.where(there, first + slot, 0)]
        there &= (jnp.right_shift(index.entry_mask[entry], archetype.astype(jnp.uint32)) & 1) == 1
        item = index.entry_item[entry]
        new = there & ~jnp.any(item[:, None] == items, axis=1)
        codes = index.entry_coarse[entry], index.entry_fine[entry], index.entry_bias[entry]
        made = score_gathered(one, *(a[None] for a in codes))[0]
        joined = jnp.concatenate([scores, jnp.where(new, made, -jnp.inf)])
        best = top_k_ties(joined[None], jnp.concatenate([items, item])[None], k)
        return best[0][0], best[1][0], scored + there.sum(), taken.at[place].add(1)

    blank = jnp.zeros(k, jnp.int32), jnp.full(k, -jnp.inf)
    start = (*blank, jnp.int32(0), jnp.zeros(places, jnp.int32))
    items, scores, scored, _ = jax.lax.while_loop(unfinished, step, start)
    return items, scores, scored
