"""How long a compiled function takes, its compilation apart."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of one function.

    Attributes:
      p50_ms: median of a call.
      p95_ms: 95 % of the calls take less.
      first_s: the first call, which compiles.
      calls: how many were timed, the first left out.
    """

    p50_ms: float
    p95_ms: float
    first_s: float
    calls: int


def time_calls(call: Callable[[], Any], seconds: float = 2.0, least: int = 5) -> Timing:
    """Calls a function again and again, each time until its result is there.

    Args:
      call: without arguments.
      seconds: goes on until so much time has passed.
      least: calls at least.
    """

    def once() -> float:
        started = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - started

    first = once()
    taken: list[float] = []
    while len(taken) < least or sum(taken) < seconds:
        taken.append(once())
    p50, p95 = np.percentile(taken, [50, 95]) * 1e3
    return Timing(float(p50), float(p95), first, len(taken))
