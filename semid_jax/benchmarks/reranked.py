"""The same decoders under S2: a search finds R items, the dense term ranks them again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semid_jax.benchmarks.decode_rows import WHOLE, accuracy, some_users, trunk_floor
from semid_jax.benchmarks.decoders import Decoder
from semid_jax.benchmarks.machine import Rates, Work
from semid_jax.benchmarks.programs import Program
from semid_jax.benchmarks.served import Served
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.rescoring import DenseItems, rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Tables
from semid_jax.eval.model import Model, user_query
from semid_jax.eval.searching import rescoring, run_search

AGAIN = " + S2"


def reranked(
    served: Served, dense: DenseItems, decoders: Sequence[Decoder], decode: DecodeConfig
) -> list[Decoder]:
    """Decoders that find what S2 ranks again, reading as much as its lists ask for.

    Args:
      served: the model, and validation under S1.
      dense: the catalogue's side of the dense term.
      decoders: the exact one first; of the others those that have a size are taken.
      decode: R, k, and how much is read if not chosen.
    """
    exact = decoders[0].finding(decode.rescored)
    again = rescoring(exact.search, dense, decode.k)
    best = run_search(served.validation.queries, again, "search exact" + AGAIN).items
    validation = dataclasses.replace(served.validation, best=best, score="S2")
    made = [exact]
    for decoder in decoders:
        if decoder.place is not None:
            asked: int = getattr(decode, decoder.reads)
            size = asked or validation.fewest(decoder.place, decoder.parts, decoder.reads)
            made.append(decoder.finding(decode.rescored).resized(size))
    return made


def worth_again(
    served: Served, dense: DenseItems, wide: Sequence[Decoder], k: int
) -> dict[str, dict[str, float]]:
    """What the lists of `reranked` are worth beside those of the first of them, by name."""
    lists = {
        decoder.name: run_search(
            served.queries, rescoring(decoder.search, dense, k), decoder.name + AGAIN
        )
        for decoder in wide
    }
    exact = lists[wide[0].name]
    return {name: accuracy(found, exact, served.side) for name, found in lists.items()}


def _answer(
    run: Callable[..., Retrieved],
    k: int,
    model: Model,
    tables: Tables,
    dense: DenseItems,
    *more: Any,
) -> Retrieved:
    *arrays, users = more
    query = user_query(model, tables, *users)
    return rescore(dense, query.dense, run(*arrays, query), k)


def reranked_programs(
    served: Served,
    dense: DenseItems,
    wide: Sequence[Decoder],
    worth: Mapping[str, dict[str, float]],
    batch: int,
    decode: DecodeConfig,
    rates: Rates,
) -> list[Program]:
    """From a history to a list ranked by S2 in one program.

    Args:
      served: the model and all users.
      dense: the catalogue's side of the dense term.
      wide: of `reranked`.
      worth: of `worth_again`.
      batch: users of a call.
      decode: R and k.
      rates: of the machine.
    """
    users, of_trunk = [some_users(served, batch)], trunk_floor(served, batch, rates)
    looked_up = min(batch * decode.rescored, len(dense.mask))
    of_s2 = rates.floor_ms(Work(bytes=float(looked_up * dense.content[0].nbytes)))
    made = []
    for decoder in wide:
        answer = functools.partial(_answer, decoder.run, decode.k)
        arrays = served.model, served.index.tables, dense, *decoder.arrays
        own = worth[decoder.name]
        # One waits for the other: nothing is hidden behind it.
        floor = of_trunk + rates.floor_ms(decoder.work(batch, own["items_scored"])) + of_s2
        name = WHOLE + decoder.name + AGAIN
        made.append(Program(name, answer, arrays, users, floor, about=own))
    return made
