"""Terms that every part shares: the axes, the tables of a data set, and the one error a user sees.

Axes: B users in a batch, T history length, N items (tables have N + 1 rows, row 0 is padding),
M modalities, D model width, A archetypes, C coarse cells, L fine digits, K codewords per digit,
d width of a fine code embedding, P probed cells, k items returned.
"""

from __future__ import annotations

import dataclasses

import numpy as np


class InputError(ValueError):
    """A wrong input, said in one line that names the file, the field and the remedy."""


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Who chose what, in time order, in compressed rows by user.

    Attributes:
      user_ids: str[U], the original ids.
      items: int32[nnz], item numbers 1..N; user u owns items[offsets[u]:offsets[u + 1]].
      offsets: int64[U + 1].
      times: int64[nnz], seconds, or None where only the order is known.
      n_items: N.
    """

    user_ids: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    n_items: int

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64[U], interactions per user."""
        return np.diff(self.offsets)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What the items are, as read from the source.

    Attributes:
      item_ids: str[N + 1], the original ids; row 0 is "".
      titles: str[N + 1], what a person calls the item.
      categories: str[N + 1], known categories joined by "|", "" if none; never a feature.
      vectors: modality -> float32[N + 1, d_m]; a row of all NaN lacks the modality (row 0 does).
      tokens: modality -> tuple of N + 1 int32 arrays, a bag of token ids per item (empty = lacks).
    """

    item_ids: np.ndarray
    titles: np.ndarray
    categories: np.ndarray
    vectors: dict[str, np.ndarray]
    tokens: dict[str, tuple[np.ndarray, ...]]

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.item_ids) - 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities, sorted."""
        return tuple(sorted((*self.vectors, *self.tokens)))


@dataclasses.dataclass(frozen=True)
class ItemFeatures:
    """Normalised features, the input of the tokenizer.

    Attributes:
      x: modality -> float32[N + 1, d_m], zero where absent.
      present: modality -> bool[N + 1].
    """

    x: dict[str, np.ndarray]
    present: dict[str, np.ndarray]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, sorted: the order of the M axis everywhere."""
        return tuple(sorted(self.x))

    @property
    def mask(self) -> np.ndarray:
        """bool[N + 1, M], which item has which modality."""
        return np.stack([self.present[name] for name in self.modalities], axis=1)
