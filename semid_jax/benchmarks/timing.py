"""How long a compiled function takes, its compilation apart."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

ROUNDS = 5  # of `time_in_turn`


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of one function.

    Attributes:
      p50_ms: median of a call.
      p95_ms: 95 % of the calls take less.
      least_ms: the fastest.
      first_s: the first call, which compiles.
      calls: how many were timed, the first left out.
    """

    p50_ms: float
    p95_ms: float
    least_ms: float
    first_s: float
    calls: int


def time_calls(call: Callable[[], Any], seconds: float = 2.0, least: int = 5) -> Timing:
    """Calls a function again and again, each time until its result is there.

    Args:
      call: without arguments.
      seconds: goes on until so much time has passed.
      least: calls at least.
    """
    first = _once(call)
    return _timing(first, _again(call, seconds, least))


def time_in_turn(calls: Sequence[Callable[[], Any]], seconds: float) -> list[Timing]:
    """`time_calls` of functions to be compared, in rounds.

    So a machine's slower moments meet all of them.

    Args:
      calls: without arguments.
      seconds: for each, of all rounds together.
    """
    first = [_once(call) for call in calls]
    rounds = [[_again(call, seconds / ROUNDS, 1) for call in calls] for _ in range(ROUNDS)]
    taken = [list(itertools.chain(*times)) for times in zip(*rounds, strict=True)]
    return [_timing(*of_call) for of_call in zip(first, taken, strict=True)]


def _once(call: Callable[[], Any]) -> float:
    """Seconds of a call, its result waited for."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def _again(call: Callable[[], Any], seconds: float, least: int) -> list[float]:
    """Seconds of each call, until they are so many and take so long."""
    taken: list[float] = []
    while len(taken) < least or sum(taken) < seconds:
        taken.append(_once(call))
    return taken


def _timing(first: float, taken: list[float]) -> Timing:
    p50, p95 = np.percentile(taken, [50, 95]) * 1e3
    return Timing(float(p50), float(p95), 1e3 * min(taken), first, len(taken))


def time_compiled(
    run: Callable[..., Any], arrays: tuple[Any, ...], batches: Sequence[Any], seconds: float
) -> tuple[Timing, dict[str, float]]:
    """Compiles, then times.

    Args:
      run: (*arrays, batch) to a result; all arguments are handed over, read or not.
      arrays: the same for every call.
      batches: taken in turns.
      seconds: how long to time.

    Returns:
      The times; seconds of compilation and the MiB that the program needs beside its arguments.
    """
    started = time.perf_counter()
    compiled = jax.jit(run, keep_unused=True).lower(*arrays, batches[0]).compile()
    taken = time.perf_counter() - started
    memory = compiled.memory_analysis()
    turns = itertools.cycle(batches)
    timing = time_calls(lambda: compiled(*arrays, next(turns)), seconds)
    made = {"compile_s": taken}
    if memory is not None:  # not every platform tells
        made["peak_mib"] = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
    return timing, made


def times(timing: Timing, floor_ms: float | None) -> dict[str, float]:
    """The columns of a time, and of its floor where there is one."""
    made = {"p50_ms": timing.p50_ms, "p95_ms": timing.p95_ms, "calls": timing.calls}
    if floor_ms is not None:
        made |= {"floor_ms": floor_ms}
    if floor_ms:  # a trunk of one block answers without a block's products
        made |= {"over_floor": timing.p50_ms / floor_ms}
    return made
