"""What the machine at hand can do: the floors that decoders are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from semid_jax.benchmarks.timing import time_calls


@dataclasses.dataclass(frozen=True)
class Work:
    """What a call must do at least.

    Attributes:
      bytes: of the catalogue that it reads.
      lookups: in tables that stay in the cache.
      operations: of products of matrices, two per multiplication.
    """

    bytes: float = 0.0
    lookups: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.bytes + other.bytes,
            self.lookups + other.lookups,
            self.operations + other.operations,
        )


def trunk_work(positions: float, width: int, layers: float) -> Work:
    """Of a transformer: four products of D x D and two of D x 4 D per position and block.

    Args:
      positions: of all users.
      width: D.
      layers: blocks; the last one of a trunk that answers at one place is none, one that leaves its
        keys and values, two of a block's twelve D x D, is a sixth.
    """
    return Work(operations=24.0 * width**2 * layers * positions)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Per second, all cores, of the fastest call.

    Attributes:
      bytes: read from memory in order.
      lookups: of float32 in a table of 256.
      operations: of a product of float32 matrices.
    """

    bytes: float
    lookups: float
    operations: float

    def floor_ms(self, work: Work) -> float:
        """The least time: what takes longest, the rest being hidden behind it."""
        seconds = (
            work.bytes / self.bytes,
            work.lookups / self.lookups,
            work.operations / self.operations,
        )
        return 1e3 * max(seconds)


def measure(seconds: float = 1.0) -> Rates:
    """Measures the rates.

    Args:
      seconds: for each.
    """
    n, size, digits = 1 << 26, 2048, 16
    ones, matrix = jnp.ones(n), jnp.ones((size, size))
    tables = jax.random.normal(jax.random.key(0), (digits, 256))
    codes = jax.random.randint(jax.random.key(1), (digits, n // 64), 0, 256).astype(jnp.uint8)

    def rate(work: float, call: Callable[..., jax.Array], *arrays: jax.Array) -> float:
        compiled = jax.jit(call)
        return work / (1e-3 * time_calls(lambda: compiled(*arrays), seconds).least_ms)

    def look_up(tables: jax.Array, codes: jax.Array) -> jax.Array:
        """As `exact` does: a term of every digit, codes of a digit in a row."""
        total = jnp.zeros(codes.shape[1])
        for table, code in zip(tables, codes, strict=True):
            total = total + jnp.take(table, code.astype(jnp.int32), mode="clip")
        return total

    return Rates(
        bytes=rate(4.0 * n, jnp.sum, ones),
        lookups=rate(codes.size, look_up, tables, codes),
        operations=rate(2.0 * size**3, jnp.dot, matrix, matrix),
    )
