"""Histories as a transformer computes them: rows, one per item, of all users one after the other.

Nearly all of a transformer looks at one place at a time, and what it spends on padding is lost:
Beauty's users hold 7 items of 20. Only attention needs the places of a user side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

SPAN = 32  # rows whose keys are read together: how many there are is a multiple
FEW = 7  # users, for whom counting places takes longer than computing all of them
SHARES = (0.25, 0.375, 0.5, 0.75)  # of all places; a program is compiled for each, and one for all


@struct.dataclass
class Rows:
    """Which places of padded histories are computed, in order.

    Attributes:
      mask: bool[B, T], False on right padding.
      first: int32[B], the row of each user's first place.
      place: int32[n], b T + t of each row, the rows behind the last item being of no use; None
        where all places are rows, padding too.
    """

    mask: jax.Array
    first: jax.Array
    place: jax.Array | None = None

    @property
    def times(self) -> jax.Array:
        """int32[n], t of each row."""
        B, T = self.mask.shape
        return jnp.tile(jnp.arange(T), B) if self.place is None else self.place % T

    @property
    def lengths(self) -> jax.Array:
        """int32[B], of the histories."""
        return jnp.sum(self.mask, axis=1)

    @property
    def last(self) -> jax.Array:
        """int32[B], the row of each user's last item; of some other place if there is none."""
        return self.first + jnp.maximum(self.lengths - 1, 0)

    def pack(self, padded: jax.Array) -> jax.Array:
        """[B, T, ...] to [n, ...]."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return flat if self.place is None else flat[self.place]

    def unpack(self, rows: jax.Array) -> jax.Array:
        """[n, ...] to [B, T, ...]; on padding lie rows of other users, finite but of no use."""
        if self.place is None:
            return rows.reshape(*self.mask.shape, *rows.shape[1:])
        T = self.mask.shape[1]
        return rows.at[self.first[:, None] + jnp.arange(T)].get(mode="clip")

    def pick(self, rows: jax.Array) -> jax.Array:
        """[n, ...] to [B, ...], each user's `last`."""
        return rows.at[self.last].get(mode="clip")

    def spread(self, each: int) -> Rows:
        """The rows where every place is so many places, one after the other."""
        place = self.place
        if place is not None:
            place = (place[:, None] * each + jnp.arange(each)).reshape(-1)
        return Rows(jnp.repeat(self.mask, each, axis=1), self.first * each, place)


def every_place(mask: jax.Array) -> Rows:
    """All places of bool[B, T], padding too: nothing is moved."""
    B, T = mask.shape
    return Rows(mask, jnp.arange(B) * T)


def items_alone(mask: jax.Array, count: int) -> Rows:
    """The places of bool[B, T] that hold an item, of which there are at most `count`."""
    lengths = jnp.sum(mask, axis=1)
    place = jnp.nonzero(mask.reshape(-1), size=count, fill_value=0)[0]
    return Rows(mask, jnp.cumsum(lengths) - lengths, place)


def without_padding(serve: Callable[[Rows], Any], mask: jax.Array) -> Any:
    """Serves users by about as many rows as they have items.

    On CPUs, where time goes with the places that are computed; elsewhere, and few users, by all.

    Args:
      serve: rows to a tree of arrays whose shapes do not depend on how many there are.
      mask: bool[B, T], False on right padding.

    Returns:
      What `serve` makes.
    """
    if jax.default_backend() != "cpu" or len(mask) <= FEW:
        return serve(every_place(mask))
    rounded = {-(-int(mask.size * share) // SPAN) * SPAN for share in SHARES}
    counts = sorted(count for count in rounded if count < mask.size)

    def alone(count: int) -> Callable[[], Any]:
        return lambda: serve(items_alone(mask, count))

    which = jnp.searchsorted(jnp.asarray(counts, jnp.int32), jnp.sum(mask))
    return jax.lax.switch(which, [*map(alone, counts), lambda: serve(every_place(mask))])
