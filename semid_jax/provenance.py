"""Where a result comes from: versions of packages, revision of the code, the machine."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

# What a result depends on; the rest of the environment is pinned by constraints.txt.
_PACKAGES = (
    "semid_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "grain",
    "tensorflow-datasets",
    "scann",
)
_CODE = ("semid_jax", "configs", "launch", "pyproject.toml", "constraints.txt")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; absent ones are left out."""
    return dict(_versions())


@functools.cache
def revision() -> str:
    """The git revision of this code, "-dirty" added if tracked code differs, or "unknown"."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    git = ["git", "-C", str(root)]
    try:
        head = _output([*git, "rev-parse", "HEAD"])
        changes = _output([*git, "status", "--porcelain", "--untracked-files=no", "--", *_CODE])
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}-dirty" if changes else head


def machine() -> str:
    """This machine in words: cores, processor, memory, and jax's devices if any is no CPU."""
    lines = _cpuinfo().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    processor += " with AMX" if has_amx() else ""  # virtual machines of one name differ in it
    words = [f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity")
             else f"{os.cpu_count()} cores", processor]  # fmt: skip
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        words.append(f"{memory:.0f} GiB")
    import jax  # late: reading records needs no device

    devices = jax.devices()
    if devices[0].platform != "cpu":
        words.append(f"{len(devices)} x {devices[0].device_kind}")
    return ", ".join(words)


@functools.cache
def has_amx() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (Intel's Advanced Matrix Extensions)."""
    return "amx_bf16" in _cpuinfo().split()


def _cpuinfo() -> str:
    """What Linux says of the processors, "" elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((package, importlib.metadata.version(package)))
    return tuple(found)


def _output(command: list[str]) -> str:
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    return result.stdout.strip()
