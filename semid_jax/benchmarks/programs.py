"""The rows of a benchmark: compiled, then timed in turns, a slow moment meeting all."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from semid_jax.benchmarks.timing import Timing, time_in_turn


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to be timed.

    Attributes:
      name: of its row, "decoder".
      run: (*arrays, batch) to a result.
      arrays: the same for every call; passed, so that nothing large is compiled in.
      batches: taken in turns.
      floor_ms: what its work takes at least, where that is known.
      compiles: False for what is not JAX.
      about: other columns of its row.
    """

    name: str
    run: Callable[..., Any]
    arrays: tuple[Any, ...]
    batches: Sequence[Any]
    floor_ms: float | None = None
    compiles: bool = True
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def time_programs(programs: Sequence[Program], seconds: float) -> list[dict[str, Any]]:
    """A row for each: its name, what its compilation took, its times, and what is known of it.

    Args:
      programs: all that are to be compared.
      seconds: of timed calls, for each.
    """
    bar = tqdm(programs, desc="compile", unit="program", file=sys.stderr)
    made = [_compile(program) for program in bar]
    timings = time_in_turn([call for call, _ in made], seconds)
    return [
        {"decoder": program.name, **compiled, **times(timing, program.floor_ms), **program.about}
        for program, (_, compiled), timing in zip(programs, made, timings, strict=True)
    ]


def _compile(program: Program) -> tuple[Callable[[], Any], dict[str, float]]:
    """The call; seconds of compilation and the MiB that it needs beside its arguments."""
    run, arrays, turns = program.run, program.arrays, itertools.cycle(program.batches)
    if not program.compiles:
        return lambda: run(*arrays, next(turns)), {}
    started = time.perf_counter()
    # Whatever is handed over is read or not, but never left out: a server hands over all of it.
    compiled = jax.jit(run, keep_unused=True).lower(*arrays, program.batches[0]).compile()
    made = {"compile_s": time.perf_counter() - started}
    memory = compiled.memory_analysis()
    if memory is not None:  # not every platform tells
        made["peak_mib"] = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
    return lambda: compiled(*arrays, next(turns)), made


def times(timing: Timing, floor_ms: float | None) -> dict[str, float]:
    """The columns of a time, and of its floor where there is one."""
    made = {"p50_ms": timing.p50_ms, "p95_ms": timing.p95_ms, "calls": timing.calls}
    if floor_ms is not None:
        made |= {"floor_ms": floor_ms}
    if floor_ms:  # a trunk of one block answers without a block's products
        made |= {"over_floor": timing.p50_ms / floor_ms}
    return made
