"""Reader of the user's own data: RecBole atomic files and one feature table per modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_jax.data.source import SHORTEST_HISTORY, RawDataset, clean
from semid_jax.data.tables import (
    check_distinct,
    check_finite,
    check_ids,
    numbers,
    read_table,
    rows_of,
    with_padding,
)
from semid_jax.types import Catalogue, InputError

TITLES = ("title", "item_name", "name", "movie_title")
CATEGORIES = ("categories", "category", "class", "genre", "genres")
FEATURE_SUFFIX = "_feat.npy"


def read_folder(source_dir: Path, min_interactions: int = SHORTEST_HISTORY) -> RawDataset:
    """Reads `*.inter`, `*.item` and `<modality>_feat.npy`, as RecBole and MMRec name them.

    `*.inter` is tab-separated with header `user_id:token  item_id:token  timestamp:float` (time may
    be missing: then the order of the rows counts). `*.item` has `item_id:token` and, where there
    are such columns, a title and categories (`:token_seq`, separated by spaces). Rows of a feature
    table are in the order of the item file; a row of all NaN says that the item lacks the modality.

    Args:
      source_dir: the folder.
      min_interactions: users with fewer are dropped.

    Raises:
      InputError: names file, field and remedy.
    """
    inter_path, item_path = _only(source_dir, "*.inter"), _only(source_dir, "*.item")
    inter = read_table(inter_path, ("user_id", "item_id"), "\t")
    item = read_table(item_path, ("item_id",), "\t")
    for path, table, column in (
        (inter_path, inter, "user_id"),
        (inter_path, inter, "item_id"),
        (item_path, item, "item_id"),
    ):
        check_ids(path, column, table[column])
    item_ids = item["item_id"]
    check_distinct(item_path, item_ids)
    catalogue = Catalogue(
        item_ids=with_padding(item_ids.tolist()),
        titles=with_padding(_first_of(item, TITLES, item_ids).tolist()),
        categories=with_padding(
            ["|".join(text.split()) for text in _first_of(item, CATEGORIES, None).tolist()]
        ),
        vectors=read_feature_tables(source_dir, item_path, item_ids),
        tokens={},
    )
    times = None
    if "timestamp" in inter:
        times = numbers(inter_path, "timestamp", inter["timestamp"])
    user_ids, first, users = np.unique(inter["user_id"], return_index=True, return_inverse=True)
    order = np.argsort(first)  # users keep the order of their first row
    rank = np.argsort(order)
    rows = rows_of(item_ids, inter["item_id"], str(inter_path)) + 1
    return clean(
        user_ids[order], rank[users], rows, times, catalogue, min_interactions, str(inter_path)
    )


def _only(source_dir: Path, pattern: str) -> Path:
    found = sorted(source_dir.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{source_dir}: needs exactly one {pattern} file, there is {names}")
    return found[0]


def _first_of(
    table: dict[str, np.ndarray], names: tuple[str, ...], default: np.ndarray | None
) -> np.ndarray:
    for name in names:
        if name in table:
            return table[name]
    return np.full(len(table["item_id"]), "") if default is None else default


def read_feature_tables(
    source_dir: Path, item_path: Path, item_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Reads every `<modality>_feat.npy` of the folder.

    Returns:
      modality -> float32[N + 1, d]; rows of items that lack it, and row 0, are all NaN.

    Raises:
      InputError: no table at all, another number of rows than items, or non-finite values.
    """
    paths = sorted(source_dir.glob(f"*{FEATURE_SUFFIX}"))
    if not paths:
        raise InputError(
            f"{source_dir}: no <modality>{FEATURE_SUFFIX} file; add one, e.g. text{FEATURE_SUFFIX}"
        )
    tables = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: is not a readable .npy array ({error})") from error
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[-1]:
            raise InputError(
                f"{path}: holds {values.dtype} {values.shape}, expected numbers [items, width]"
            )
        if len(values) != len(item_ids):
            raise InputError(
                f"{path}: {len(values)} rows, but {item_path.name} has {len(item_ids)} items; "
                "give one row per item, in the order of the item file"
            )
        check_finite(values, str(path), item_ids)
        table = np.full((len(values) + 1, values.shape[1]), np.nan, np.float32)
        table[1:] = values
        tables[path.name[: -len(FEATURE_SUFFIX)]] = table
    return tables
