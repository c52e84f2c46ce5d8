"""Leave-last-out: the last item of a user is for test, the one before for validation."""

from __future__ import annotations

import numpy as np

from semid_jax.types import InputError, Interactions

SPLITS = ("train", "validation", "test")


def split_end(interactions: Interactions, split: str) -> np.ndarray:
    """Where the known prefix of each user ends (exclusive).

    Args:
      interactions: histories of at least 3 items.
      split: "train": the part to train on, all but two items; "validation": the same part, the
        item behind it is the target; "test": all but one item, the last one is the target.

    Returns:
      int64[U], in positions of the user's own history.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {SPLITS}")
    return interactions.lengths.astype(np.int64) - (1 if split == "test" else 2)


def train_mask(interactions: Interactions) -> np.ndarray:
    """bool[nnz], which interactions belong to the train part."""
    lengths = interactions.lengths
    position = np.arange(len(interactions.items)) - np.repeat(interactions.offsets[:-1], lengths)
    return position < np.repeat(split_end(interactions, "train"), lengths)


def prefixes(
    interactions: Interactions,
    split: str,
    max_length: int,
    users: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last `max_length` items each user had before the target, and the target.

    Args:
      interactions: histories.
      split: "validation" or "test".
      max_length: T.
      users: int[B], which users; None for all.

    Returns:
      histories int32[B, T], right-padded with 0; lengths int32[B]; targets int32[B].
    """
    if split not in SPLITS[1:]:
        raise ValueError(f"split {split!r} has no target; use one of {SPLITS[1:]}")
    users = np.arange(interactions.n_users) if users is None else np.asarray(users)
    end = interactions.offsets[users] + split_end(interactions, split)[users]
    start = np.maximum(interactions.offsets[users], end - max_length)
    histories, lengths = gather_windows(interactions.items, start, end, max_length)
    return histories, lengths, interactions.items[end]


def check_trainable(interactions: Interactions) -> None:
    """Refuses histories of which nothing is left to train on.

    Raises:
      InputError: none has two items before those that are held out.
    """
    if not np.any(split_end(interactions, "train") > 1):
        raise InputError("data: every history is 3 items long, nothing to train on; give more")


def gather_windows(
    items: np.ndarray, start: np.ndarray, end: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Slices items[start:end] of a flat array, side by side.

    Args:
      items: int32[nnz].
      start: int64[B].
      end: int64[B], end - start <= width.
      width: T.

    Returns:
      int32[B, T], right-padded with 0, and lengths int32[B].
    """
    lengths = end - start
    columns = np.arange(width)
    valid = columns < lengths[:, None]
    places = np.minimum(start[:, None] + columns, max(len(items) - 1, 0))
    return np.where(valid, items[places], 0).astype(np.int32), lengths.astype(np.int32)


def popularity(interactions: Interactions) -> np.ndarray:
    """int64[N + 1], how often each item occurs in the train part; row 0 is 0."""
    shown = interactions.items[train_mask(interactions)]
    return np.bincount(shown, minlength=interactions.n_items + 1).astype(np.int64)


def train_items(interactions: Interactions) -> np.ndarray:
    """bool[N + 1], items of the train part: the only ones that anything may be fitted on."""
    return popularity(interactions) > 0


def log_proposal(counts: np.ndarray) -> np.ndarray:
    """Log probability of drawing each item as a sampled candidate: half popular, half uniform.

    Args:
      counts: int64[N + 1], training interactions per item.

    Returns:
      float32[N + 1]; row 0 is so small that padding is never drawn.
    """
    weights = 0.5 * counts / max(counts.sum(), 1) + 0.5 / (len(counts) - 1)
    weights[0] = 1e-30
    return np.log(weights).astype(np.float32)
