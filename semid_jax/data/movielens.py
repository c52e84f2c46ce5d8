"""Readers of MovieLens-1M and MovieLens-100K with poster and plot features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_jax.data.source import SHORTEST_HISTORY, RawDataset, clean
from semid_jax.data.tables import (
    numbers,
    read_features,
    read_jsonl,
    read_sequences,
    read_table,
    rows_of,
    whole_ids,
    whole_numbers,
)
from semid_jax.data.tables import with_padding as padded
from semid_jax.types import Catalogue


def read_movies(source_dir: Path) -> tuple[np.ndarray, Catalogue]:
    """All movies of MovieLens-1M with modalities `image` (poster) and `text` (title and plot).

    Args:
      source_dir: holds items.jsonl and the two feature tables.

    Returns:
      movie ids int64[N] and the catalogue, rows in the same order.
    """
    path = source_dir / "items.jsonl"
    movies = read_jsonl(path, {"movieId": int, "title": str, "genres": list})
    ids = whole_ids(path, [movie["movieId"] for movie in movies])
    catalogue = Catalogue(
        item_ids=padded([str(number) for number in ids]),
        titles=padded([movie["title"] for movie in movies]),
        categories=padded(["|".join(movie["genres"]) for movie in movies]),
        vectors={
            "image": read_features(source_dir / "poster_effnetlite0_fp16.npz", "ids", "feat", ids),
            "text": read_features(source_dir / "text_minilm_fp16.npz", "ids", "emb", ids),
        },
        tokens={},
    )
    return ids, catalogue


def read_movielens_1m(source_dir: Path, min_interactions: int = SHORTEST_HISTORY) -> RawDataset:
    """Reads MovieLens-1M; only the order of its interactions is known, so `times` is None.

    Args:
      source_dir: holds sequences.txt.gz, items.jsonl and the feature tables.
      min_interactions: users with fewer are dropped.
    """
    path = source_dir / "sequences.txt.gz"
    user_ids, users, movies = read_sequences(path)
    ids, catalogue = read_movies(source_dir)
    items = rows_of(ids, movies, str(path)) + 1
    return clean(user_ids, users, items, None, catalogue, min_interactions, str(path))


def read_movielens_100k(source_dir: Path, min_interactions: int = SHORTEST_HISTORY) -> RawDataset:
    """Reads MovieLens-100K, whose movies take their features from the sibling movielens_1m folder.

    A movie without a counterpart in MovieLens-1M stays, with neither poster nor plot.

    Args:
      source_dir: holds interactions.csv.gz; ../movielens_1m holds the features.
      min_interactions: users with fewer are dropped.
    """
    path = source_dir / "interactions.csv.gz"
    table = read_table(path, ("user", "item100k", "timestamp", "movieId_ml1m"))
    user_numbers, movies = (whole_numbers(path, name, table[name]) for name in ("user", "item100k"))
    times = numbers(path, "timestamp", table["timestamp"]).astype(np.int64)
    matched = numbers(path, "movieId_ml1m", table["movieId_ml1m"], gaps=True)
    matched = np.nan_to_num(matched, nan=-1).astype(np.int64)

    ids, first = np.unique(movies, return_index=True)
    counterparts, features = read_movies(source_dir.parent / "movielens_1m")
    counterpart = matched[first]
    known = np.isin(counterpart, counterparts)
    rows = np.zeros(len(ids), np.int64)  # row 0 of the features is padding: no modality
    rows[known] = rows_of(counterparts, counterpart[known], str(path)) + 1
    catalogue = Catalogue(
        item_ids=padded([str(number) for number in ids]),
        titles=padded(
            [
                str(features.titles[row]) or f"movie {number}"
                for number, row in zip(ids, rows, strict=True)
            ]
        ),
        categories=features.categories[np.concatenate([[0], rows])],
        vectors={
            name: values[np.concatenate([[0], rows])] for name, values in features.vectors.items()
        },
        tokens={},
    )
    user_ids, users = np.unique(user_numbers, return_inverse=True)
    items = rows_of(ids, movies, str(path)) + 1
    return clean(user_ids.astype(str), users, items, times, catalogue, min_interactions, str(path))
