"""Settings of the search."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ListConfig:
    """What is returned by a model that has only the exact search.

    Attributes:
      k: items returned per user.
    """

    k: int = 50


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How the index is searched.

    Attributes:
      methods: searches that the evaluation runs side by side, the first one being of record.
      probes: P, cells probed per user by `inverted` and `scann`.
      k: items returned per user.
      chunk: entries scored at once by `exact`.
    """

    methods: tuple[str, ...] = ("inverted", "scann", "exact")
    probes: int = 16
    k: int = 50
    chunk: int = 8192
