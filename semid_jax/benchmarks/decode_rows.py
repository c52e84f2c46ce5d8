"""What is timed of every decoder, and what its ranked lists are worth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.benchmarks.decoders import Decoder
from semid_jax.benchmarks.machine import Rates, trunk_work
from semid_jax.benchmarks.programs import Program, time_programs
from semid_jax.benchmarks.served import Served
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


def decoder_programs(
    decoders: Sequence[Decoder],
    queries: Sequence[Any],
    worth: Mapping[str, dict[str, float]],
    rates: Rates,
) -> list[Program]:
    """Those decoders that take so many users, on queries that are already made.

    Args:
      decoders: the exact one first.
      queries: batches of users.
      worth: name -> accuracy; of a decoder that is not there a few queries tell.
      rates: of the machine.
    """
    users, made = len(queries[0].archetype), []
    for decoder in decoders:
        if decoder.most is not None and decoder.most < users:
            continue
        own = worth.get(decoder.name, {})
        if not own or users < decoder.least:
            own = own | spot_check(decoder, decoders[0], queries)
        work = decoder.work(users, own["items_scored"])
        about = {"bytes_touched": work.bytes, "build_s": decoder.build_s, **own}
        floor, compiles = rates.floor_ms(work), decoder.compiles
        of_decoder = decoder.name, decoder.run, decoder.arrays
        made.append(Program(*of_decoder, queries, floor, compiles, about))
    return made


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
) -> list[Program]:
    """From a history to a ranked list in one program; its model alone; a call that does nothing.

    Args:
      served: the model and all users.
      decoders: those that have a size are put behind the model.
      worth: name -> accuracy of all of those.
      batch: users of a call.
      rates: of the machine.
    """
    users, of_trunk = [some_users(served, batch)], trunk_floor(served, batch, rates)
    of_model = served.model, served.index.tables

    def nothing(model: Model, tables: Tables, users: Any) -> jax.Array:
        del model, tables
        archetype: jax.Array = users[3]
        return archetype

    made = [
        Program(CALL, nothing, of_model, users),
        Program(TRUNK, _ask, of_model, users, of_trunk),
    ]
    for decoder in (decoder for decoder in decoders if decoder.reads):
        answer = functools.partial(_answer, decoder.run)
        # A search waits for its query: none of its work is hidden behind the trunk's.
        floor = of_trunk + rates.floor_ms(decoder.work(batch, worth[decoder.name]["items_scored"]))
        arrays = *of_model, *decoder.arrays
        made.append(Program(WHOLE + decoder.name, answer, arrays, users, floor))
    return made


def trace_sizes(
    decoders: Sequence[Decoder],
    served: Served,
    exact: Lists,
    asked: Mapping[int, Sequence[Any]],
    seconds: float,
) -> list[dict[str, Any]]:
    """Recall against time as more cells, or leaves, are read.

    Args:
      decoders: those that have a size are traced.
      served: the model and all users.
      exact: their exact lists.
      asked: users of a call to some queries of as many.
      seconds: of timed calls, for each.
    """
    traced = []
    for decoder in (decoder for decoder in decoders if decoder.reads):
        sizes = {min(max(round(f * decoder.size), 1), decoder.parts) for f in FACTORS}
        for other in (decoder.resized(size) for size in sorted(sizes)):
            lists = run_search(served.queries, other.search, f"{other.size} of {other.name}")
            traced.append((other, accuracy(lists, exact, served.side)))
    points = []
    for batch, queries in asked.items():
        programs = [Program(other.name, other.run, other.arrays, queries) for other, _ in traced]
        for (other, worth), row in zip(traced, time_programs(programs, seconds), strict=True):
            about = {"batch": batch, "decoder": other.name, "size": other.size}
            points.append({**about, **worth, "p50_ms": row["p50_ms"]})
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
