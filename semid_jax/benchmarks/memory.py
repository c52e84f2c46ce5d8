"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # what CLEAR takes to set the peak to what is held now


def measure_peak(work: Callable[[], Any]) -> tuple[float, float | None]:
    """Runs some work once.

    Args:
      work: to be done.

    Returns:
      Seconds; MiB that the process held at its peak beyond what it had held before, None where the
      system does not tell (Linux does).
    """
    try:
        CLEAR.write_text(FORGET_PEAK)
        held = _read("VmRSS")
    except OSError:  # not Linux, or not allowed
        held = None
    started = time.perf_counter()
    work()
    taken = time.perf_counter() - started
    return taken, None if held is None else _read("VmHWM") - held


def _read(name: str) -> float:
    """A line of STATUS, in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
