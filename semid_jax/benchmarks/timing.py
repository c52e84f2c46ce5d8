"""How long a function takes, its first call apart."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

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

    So a machine's slower moments meet all of them. The first call of a round, which finds what the
    others left in the caches, is not counted.

    Args:
      calls: without arguments.
      seconds: for each, of all rounds together.
    """
    first = [_once(call) for call in calls]

    def warm(call: Callable[[], Any]) -> list[float]:
        _once(call)
        return _again(call, seconds / ROUNDS, 1)

    bar = tqdm(range(ROUNDS), desc="time", unit="round", file=sys.stderr)
    rounds = [[warm(call) for call in calls] for _ in bar]
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
