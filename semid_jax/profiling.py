"""A JAX profiler trace of decode steps, phase by phase, and the table read back from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

PREFIX = "decode:"
WHOLE = "one program"


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """The profile stage.

    Attributes:
      enabled: trace after evaluation.
      steps: decode steps in the trace.
      batch: users per step.
    """

    enabled: bool = False
    steps: int = 20
    batch: int = 64


Phase = tuple[str, Callable[[dict[str, Any]], Any]]


def trace_phases(
    phases: list[Phase], whole: Callable[[], Any], steps: int, directory: Path
) -> list[dict[str, Any]]:
    """Runs a chain of compiled phases under the profiler.

    Args:
      phases: (name, function of all earlier results by name).
      whole: all phases as one compiled program, which is what a server calls.
      steps: repetitions in the trace, after one warm-up.
      directory: receives the trace, to be viewed with xprof.

    Returns:
      One row per phase, read back from the trace: "phase", "mean_ms", "p50_ms", "p95_ms", "share";
      behind them "one program", without a share: it need not keep what a phase hands to the next.
    """

    def chain() -> None:
        results: dict[str, Any] = {}
        for name, phase in phases:
            with jax.profiler.TraceAnnotation(PREFIX + name):
                results[name] = jax.block_until_ready(phase(results))
        with jax.profiler.TraceAnnotation(PREFIX + WHOLE):
            jax.block_until_ready(whole())

    chain()
    directory.mkdir(parents=True, exist_ok=True)
    with jax.profiler.trace(str(directory)):
        for step in range(steps):
            with jax.profiler.StepTraceAnnotation("decode", step_num=step):
                chain()
    return read_phases(directory, [*(name for name, _ in phases), WHOLE])


def read_phases(directory: Path, names: list[str]) -> list[dict[str, Any]]:
    """The phase table of the newest trace in a folder."""
    newest = max(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    durations: dict[str, list[float]] = {name: [] for name in names}
    for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
        for line in plane.lines:
            for event in line.events:
                name = event.name.removeprefix(PREFIX)
                if event.name.startswith(PREFIX) and name in durations:
                    durations[name].append(event.duration_ns / 1e6)
    phases = [d for name, d in durations.items() if d and name != WHOLE]
    total = sum(float(np.mean(d)) for d in phases) or 1.0
    return [
        {
            "phase": name,
            "mean_ms": float(np.mean(d)),
            "p50_ms": float(np.percentile(d, 50)),
            "p95_ms": float(np.percentile(d, 95)),
            "share": None if name == WHOLE else float(np.mean(d)) / total,
        }
        for name, d in durations.items()
        if d
    ]
