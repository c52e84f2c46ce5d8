"""Reader of SiTunes: plays of songs that are described by what they sound like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_jax.data.source import SHORTEST_HISTORY, RawDataset, clean
from semid_jax.data.tables import (
    check_distinct,
    numbers,
    read_table,
    whole_numbers,
    with_padding,
)
from semid_jax.types import Catalogue

STAGES = ("stage1.csv", "stage2.csv", "stage3.csv")
# Of the whole song: what a streaming service says of it, and functionals of openSMILE.
DESCRIPTORS = (
    "loudness",
    "danceability",
    "energy",
    "key",
    "speechiness",
    "acousticness",
    "instrumentalness",
    "valence",
    "tempo",
    "F0final_sma_amean",
    "F0final_sma_stddev",
    "audspec_lengthL1norm_sma_stddev",
    "pcm_RMSenergy_sma_stddev",
    "pcm_fftMag_psySharpness_sma_amean",
    "pcm_fftMag_psySharpness_sma_stddev",
    "pcm_zcr_sma_amean",
    "pcm_zcr_sma_stddev",
)


def read_situnes(source_dir: Path, min_interactions: int = SHORTEST_HISTORY) -> RawDataset:
    """Reads the plays of all three stages, with their times; ratings are left out.

    Modalities are `audio` (17 acoustic descriptors, each with mean 0 and deviation 1 over the
    described songs, for they have different units) and `attributes` (genre and singer, tokens).
    Genre is a feature, so no song has a known category to compare cells with. A song that was
    played and is not described stays, with neither; one that lacks a descriptor has no audio.

    Args:
      source_dir: holds music.csv and stage1.csv to stage3.csv.
      min_interactions: users with fewer are dropped.

    Raises:
      InputError: names file, line or column.
    """
    path = source_dir / "music.csv"
    songs = read_table(path, ("i_id_c", "music", "singer", "general_genre", *DESCRIPTORS))
    described = whole_numbers(path, "i_id_c", songs["i_id_c"])
    check_distinct(path, described)
    plays = [_read_stage(source_dir / name) for name in STAGES]
    users, played, times = (np.concatenate(column) for column in zip(*plays, strict=True))

    ids = np.union1d(described, played)
    rows = np.searchsorted(ids, described) + 1
    titles = np.array([f"song {number}" for number in ids], dtype=object)
    titles[rows - 1] = songs["music"]
    audio = np.full((len(ids) + 1, len(DESCRIPTORS)), np.nan, np.float32)
    audio[rows] = _standardised(
        np.stack([numbers(path, name, songs[name], gaps=True) for name in DESCRIPTORS], axis=1)
    )
    words = np.stack([np.char.add(f"{name}:", songs[name]) for name in ("general_genre", "singer")])
    tokens = np.unique(words, return_inverse=True)[1].reshape(words.shape).T.astype(np.int32)
    attributes = [np.zeros(0, np.int32)] * (len(ids) + 1)
    for row, bag in zip(rows, tokens, strict=True):
        attributes[row] = bag
    catalogue = Catalogue(
        item_ids=with_padding([str(number) for number in ids]),
        titles=with_padding(titles.tolist()),
        categories=with_padding([""] * len(ids)),
        vectors={"audio": audio},
        tokens={"attributes": tuple(attributes)},
    )
    user_ids, users = np.unique(users, return_inverse=True)
    items = np.searchsorted(ids, played) + 1
    names = user_ids.astype(str)
    return clean(names, users, items, times, catalogue, min_interactions, str(source_dir))


def _read_stage(path: Path) -> list[np.ndarray]:
    """Users, songs and times of one file, int64[n] each."""
    table = read_table(path, ("user_id", "item_id", "timestamp"))
    times = numbers(path, "timestamp", table["timestamp"]).astype(np.int64)
    return [*(whole_numbers(path, name, table[name]) for name in ("user_id", "item_id")), times]


def _standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 per column over the rows without gaps; the others are all NaN."""
    whole = np.isfinite(values).all(axis=1)
    deviation = values[whole].std(axis=0)
    scaled = (values - values[whole].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return np.where(whole[:, None], scaled, np.nan)
