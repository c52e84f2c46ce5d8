"""Reader of the Amazon review data of 2014, 5-core, one category."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_jax.data.source import SHORTEST_HISTORY, RawDataset, clean
from semid_jax.data.tables import (
    read_features,
    read_jsonl,
    read_sequences,
    rows_of,
    whole_ids,
    with_padding,
)
from semid_jax.types import Catalogue, InputError


def read_amazon_2014(
    source_dir: Path, category: str, min_interactions: int = SHORTEST_HISTORY
) -> RawDataset:
    """Reads one category; modalities `text` (title) and `attributes` (category and brand tokens).

    Attributes are features, so no item has a known category to compare cells with.

    Args:
      source_dir: holds one folder per category, each with sequences.txt, items.jsonl and
        text_minilm_fp16.npz.
      category: name of the folder, e.g. "Beauty".
      min_interactions: users with fewer are dropped.

    Raises:
      InputError: the category has no folder, or a file is wrong.
    """
    folder = source_dir / category
    if not category or not folder.is_dir():
        there = sorted(path.name for path in source_dir.iterdir() if path.is_dir())
        raise InputError(
            f"data.category = {category!r}: no such folder in {source_dir}; "
            f"there are {', '.join(there) or 'none'}"
        )
    path = folder / "sequences.txt"
    user_ids, users, numbers = read_sequences(path)
    fields = {"id": int, "asin": str, "text": str, "attributes": list}
    products = read_jsonl(folder / "items.jsonl", fields)
    ids = whole_ids(folder / "items.jsonl", [product["id"] for product in products])
    empty = np.zeros(0, np.int32)
    catalogue = Catalogue(
        item_ids=with_padding([product["asin"] for product in products]),
        titles=with_padding([product["text"] for product in products]),
        categories=with_padding([""] * len(products)),
        vectors={"text": read_features(folder / "text_minilm_fp16.npz", "ids", "emb", ids)},
        tokens={
            "attributes": (
                empty,
                *(_tokens(folder / "items.jsonl", product["attributes"]) for product in products),
            )
        },
    )
    items = rows_of(ids, numbers, str(path)) + 1
    return clean(user_ids, users, items, None, catalogue, min_interactions, str(path))


def _tokens(path: Path, numbers: list) -> np.ndarray:
    """The attributes of a product, int32[n].

    Raises:
      InputError: one of them is no number of an attribute.
    """
    try:
        return np.array(numbers, np.int32).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: attributes are {numbers}; give whole numbers below 2^31"
        ) from error
