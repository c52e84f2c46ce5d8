"""What a reader returns, and the cleaning that all readers share."""

from __future__ import annotations

import dataclasses

import numpy as np

from semid_jax.types import Catalogue, InputError, Interactions

SHORTEST_HISTORY = 3  # one interaction each to train on, to validate with and to test with


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """A data set as read: clean, numbered, not yet split.

    Attributes:
      interactions: histories in time order.
      catalogue: the items that have interactions.
      notes: what cleaning did, name -> count; said to the user, never silent.
      truth: the planted parameters of a synthetic world, {} for real data.
    """

    interactions: Interactions
    catalogue: Catalogue
    notes: dict[str, int]
    truth: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def clean(
    user_ids: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray | None,
    catalogue: Catalogue,
    min_interactions: int = SHORTEST_HISTORY,
    source: str = "interactions",
) -> RawDataset:
    """Orders, de-duplicates, filters and numbers the interactions of one source.

    Repeated (user, item, time) triples are duplicates and dropped. Where only the order is known
    two visits to one item are two times, so nothing is dropped. Only items that have interactions
    after that stay in the catalogue, in catalogue order.

    Args:
      user_ids: str[U0], original ids.
      users: int[nnz0], row of each interaction in user_ids.
      items: int[nnz0], row of each interaction in the catalogue, 1..N0.
      times: int64 or float64[nnz0] in seconds, or None where only the order of rows is known.
      catalogue: all items of the source.
      min_interactions: users with fewer are dropped, at least 3.
      source: the file to name in errors.

    Returns:
      The data set; `notes` has users_reordered (their times were not ascending, they are now),
      duplicates_dropped, users_too_short, items_without_interactions and, per modality,
      items_without_<modality>.

    Raises:
      InputError: no user is left, or min_interactions is below 3.
    """
    if min_interactions < SHORTEST_HISTORY:
        raise InputError(
            f"data.min_interactions = {min_interactions}: leave-last-out needs at least "
            f"{SHORTEST_HISTORY} interactions per user, set {SHORTEST_HISTORY} or more"
        )
    users = np.asarray(users, np.int64)
    items = np.asarray(items, np.int64)
    order = np.argsort(users, kind="stable")
    reordered = 0
    duplicates = 0
    if times is not None:
        times = np.asarray(times)
        same_user = users[order][1:] == users[order][:-1]
        falls = same_user & (np.diff(times[order]) < 0)
        reordered = len(np.unique(users[order][1:][falls]))
        if reordered:
            order = np.lexsort((times, users))  # lexsort is stable: ties keep the file's order
        users, items, times = users[order], items[order], times[order]
        keep = ~_repeats(users, items, times)
        duplicates = int(np.sum(~keep))
        users, items, times = users[keep], items[keep], times[keep]
    else:
        users, items = users[order], items[order]

    counts = np.bincount(users, minlength=len(user_ids))
    long_enough = counts >= min_interactions
    too_short = int(np.sum(~long_enough & (counts > 0)))
    keep = long_enough[users]
    users, items = users[keep], items[keep]
    times = None if times is None else np.floor(times[keep]).astype(np.int64)
    if not len(users):
        raise InputError(
            f"{source}: no user has {min_interactions} or more interactions, "
            "so nothing can be held out; give longer histories"
        )

    used = np.zeros(catalogue.n_items + 1, bool)
    used[items] = True
    number = np.cumsum(used)
    catalogue = select_items(catalogue, np.flatnonzero(used))
    lengths = counts[long_enough]
    interactions = Interactions(
        user_ids=np.asarray(user_ids)[long_enough],
        items=number[items].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        times=times,
        n_items=catalogue.n_items,
    )
    notes = {
        "users_reordered": reordered,
        "duplicates_dropped": duplicates,
        "users_too_short": too_short,
        "items_without_interactions": int(np.sum(~used[1:])),
        **count_missing(catalogue),
    }
    return RawDataset(interactions, catalogue, notes)


def _repeats(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """bool[nnz], True where an earlier row holds the same (user, item, time)."""
    order = np.lexsort((items, times, users))
    same = np.ones(max(len(users) - 1, 0), bool)
    for column in (users, items, times):
        same &= column[order][1:] == column[order][:-1]
    repeats = np.zeros(len(users), bool)
    repeats[order[1:][same]] = True
    return repeats


def select_items(catalogue: Catalogue, rows: np.ndarray) -> Catalogue:
    """The catalogue of the given items, renumbered 1..n in the given order.

    Args:
      catalogue: N items.
      rows: int[n], distinct item numbers, 1..N.

    Returns:
      A catalogue of n items; row 0 stays padding.
    """
    with_padding = np.concatenate([[0], rows]).astype(np.int64)
    return Catalogue(
        item_ids=catalogue.item_ids[with_padding],
        titles=catalogue.titles[with_padding],
        categories=catalogue.categories[with_padding],
        vectors={name: table[with_padding] for name, table in catalogue.vectors.items()},
        tokens={
            name: tuple(bags[row] for row in with_padding)
            for name, bags in catalogue.tokens.items()
        },
    )


def count_missing(catalogue: Catalogue) -> dict[str, int]:
    """How many items lack each modality, as items_without_<modality> -> count."""
    notes = {}
    for name in catalogue.modalities:
        if name in catalogue.vectors:
            lacking = int(np.isnan(catalogue.vectors[name][1:, 0]).sum())
        else:
            lacking = sum(len(bag) == 0 for bag in catalogue.tokens[name][1:])
        notes[f"items_without_{name}"] = lacking
    return notes


def describe(dataset: RawDataset) -> str:
    """One line for the terminal: sizes, modalities, and each count of cleaning above zero."""
    interactions = dataset.interactions
    said = [f"{count:,} {name.replace('_', ' ')}" for name, count in dataset.notes.items() if count]
    return (
        f"{interactions.n_users:,} users, {interactions.n_items:,} items, "
        f"{len(interactions.items):,} interactions, "
        f"modalities {', '.join(dataset.catalogue.modalities)}"
        + (f" ({'; '.join(said)})" if said else "")
    )
