"""A row for every decoder: how long its ranked lists take, and what they are worth."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.benchmarks.decoders import Decoder
from semid_jax.benchmarks.machine import Rates, trunk_work
from semid_jax.benchmarks.served import Served
from semid_jax.benchmarks.timing import time_calls, time_compiled, times
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Tables
from semid_jax.eval.model import Model, ReadSide, user_query
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.searching import overlap, run_search
from semid_jax.eval.users import Lists, mean_metrics

CALL, TRUNK, WHOLE, STREAM = "call alone", "trunk", "trunk + ", "stream + "
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the size that was chosen


def accuracy(found: Lists, exact: Lists, side: ReadSide) -> dict[str, float]:
    """What lists are worth beside those of the exact search."""
    ndcg, best = (
        mean_metrics(target_ranks(lists.items, side.targets))["ndcg@10"] for lists in (found, exact)
    )
    return {
        "recall@10": overlap(found.items[:, :10], exact.items[:, :10]),
        "ndcg@10": ndcg,
        "search_loss": 1.0 - ndcg / best if best else 0.0,
        "items_scored": float(found.scored.mean()),
    }


def spot_check(decoder: Decoder, exact: Decoder, queries: Sequence[Any]) -> dict[str, float]:
    """Recall on a few queries only."""
    found = [jax.device_get(decoder.search(query)) for query in queries]
    best = [np.asarray(exact.search(query).items) for query in queries]
    items = np.concatenate([part.items for part in found])
    return {
        "recall@10": overlap(items[:, :10], np.concatenate(best)[:, :10]),
        "items_scored": float(np.mean([part.scored for part in found])),
    }


def time_decoders(
    decoders: Sequence[Decoder],
    queries: Sequence[Any],
    worth: Mapping[str, dict[str, float]],
    rates: Rates,
    seconds: float,
) -> list[dict[str, Any]]:
    """Times those that take so many users.

    Args:
      decoders: the exact one first.
      queries: batches of users.
      worth: name -> accuracy; of a decoder that is not there a few queries tell.
      rates: of the machine.
      seconds: how long to time each.
    """
    rows = []
    for decoder in decoders:
        users = len(queries[0].archetype)
        if decoder.most is not None and decoder.most < users:
            continue
        own = worth.get(decoder.name, {})
        if not own or users < decoder.least:
            own = own | spot_check(decoder, decoders[0], queries)
        row = time_decoder(decoder, queries, own, rates, seconds)
        rows.append({**row, "build_s": decoder.build_s, **own})
    return rows


def time_decoder(
    decoder: Decoder,
    queries: Sequence[Any],
    worth: dict[str, float],
    rates: Rates,
    seconds: float,
) -> dict[str, Any]:
    """Times a decoder on queries that are already made.

    Args:
      decoder: which.
      queries: batches of users, taken in turns.
      worth: of `accuracy`.
      rates: of the machine.
      seconds: how long to time.
    """
    users = len(queries[0].archetype)
    work = decoder.work(users, worth["items_scored"])
    row: dict[str, Any] = {"decoder": decoder.name, "bytes_touched": work.bytes}
    if decoder.compiles:
        timing, made = time_compiled(decoder.run, decoder.arrays, queries, seconds)
        row |= made
    else:
        turns = itertools.cycle(queries)
        timing = time_calls(lambda: decoder.run(*decoder.arrays, next(turns)), seconds)
    return row | times(timing, rates.floor_ms(work))


def _ask(model: Model, tables: Tables, users: Any) -> Any:
    return user_query(model, tables, *users)


def _answer(run: Callable[..., Retrieved], model: Model, tables: Tables, *more: Any) -> Retrieved:
    *arrays, users = more
    return run(*arrays, _ask(model, tables, users))


def some_users(served: Served, batch: int) -> tuple[jax.Array, ...]:
    """Users from all over as `user_query` reads them."""
    part = served.some_side(batch)
    fields = part.coarse, part.fine, part.history, part.archetype, part.belief, part.alpha
    return tuple(jnp.asarray(a) for a in fields)


def trunk_floor(served: Served, batch: int, rates: Rates) -> float:
    """Milliseconds that the trunk's products take at least, of items alone, not of padding."""
    sizes = served.model.generator.config
    positions = int((served.some_side(batch).history > 0).sum())
    return rates.floor_ms(trunk_work(positions, sizes.width, sizes.layers - 1))


def end_to_end(
    served: Served,
    decoders: Sequence[Decoder],
    worth: Mapping[str, dict[str, float]],
    batch: int,
    rates: Rates,
    seconds: float,
) -> list[dict[str, Any]]:
    """From a history to a ranked list in one program; its model alone; a call that does nothing.

    Args:
      served: the model and all users.
      decoders: those that have a size are put behind the model.
      worth: name -> accuracy of all of those.
      batch: users of a call.
      rates: of the machine.
      seconds: how long to time each.
    """
    of_users, of_trunk = some_users(served, batch), trunk_floor(served, batch, rates)
    tables = served.index.tables

    def nothing(model: Model, tables: Tables, users: Any) -> jax.Array:
        del model, tables
        archetype: jax.Array = users[3]
        return archetype

    programs: list[tuple[str, Callable[..., Any], tuple[Any, ...]]]
    programs = [(CALL, nothing, ()), (TRUNK, _ask, ())]
    floors = {TRUNK: of_trunk}
    for decoder in (decoder for decoder in decoders if decoder.reads):
        answer = functools.partial(_answer, decoder.run)
        # A search waits for its query: none of its work is hidden behind the trunk's.
        work = decoder.work(batch, worth[decoder.name]["items_scored"])
        floors[WHOLE + decoder.name] = of_trunk + rates.floor_ms(work)
        programs.append((WHOLE + decoder.name, answer, decoder.arrays))
    made = []
    for name, program, arrays in programs:
        of_model = served.model, tables
        timing, compiled = time_compiled(program, (*of_model, *arrays), [of_users], seconds)
        made.append({"decoder": name, **compiled, **times(timing, floors.get(name))})
    return made


def trace_sizes(
    decoders: Sequence[Decoder],
    served: Served,
    exact: Lists,
    asked: Mapping[int, Sequence[Any]],
) -> list[dict[str, Any]]:
    """Recall against time as more cells, or leaves, are read.

    Args:
      decoders: those that have a size are traced.
      served: the model and all users.
      exact: their exact lists.
      asked: users of a call to some queries of as many.
    """
    points = []
    for decoder in (decoder for decoder in decoders if decoder.reads):
        sizes = {min(max(round(f * decoder.size), 1), decoder.parts) for f in FACTORS}
        for size in sorted(sizes):
            other = decoder.resized(size)
            lists = run_search(served.queries, other.search, f"{size} of {decoder.name}")
            row = {"decoder": decoder.name, "size": size, **accuracy(lists, exact, served.side)}
            for batch, queries in asked.items():
                timing, _ = time_compiled(other.run, other.arrays, queries, 0.5)
                points.append({"batch": batch, **row, "p50_ms": timing.p50_ms})
    return points


def finish(rows: list[dict[str, Any]], n_items: int) -> None:
    """Adds what compares a row with others of its batch.

    "ratio": how often `exact` takes its time. "slower", of what goes from histories to lists: how
    often it takes the time of the fastest of the trunk and a search.
    """
    exact = {row["batch"]: row["p50_ms"] for row in rows if row["decoder"] == "exact"}
    whole: dict[int, float] = {}
    for row in rows:
        if row["decoder"].startswith(WHOLE):
            whole[row["batch"]] = min(row["p50_ms"], whole.get(row["batch"], math.inf))
    for row in rows:
        row["n_items"] = n_items
        if row["decoder"].startswith((WHOLE, STREAM, "ar_")):
            row["slower"] = row["p50_ms"] / whole[row["batch"]]
        elif row["decoder"] not in (CALL, TRUNK):
            row["ratio"] = exact[row["batch"]] / row["p50_ms"]
