"""TensorFlow Datasets builders, written as ArrayRecord and read back without TensorFlow.

Every data set is stored in the same two tables, one builder config each: `users` (one history per
row) and `items` (one item per row, with its features). What cleaning counted, and the planted truth
of a synthetic world, lie beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from semid_jax.data.source import RawDataset
from semid_jax.types import Catalogue, InputError, Interactions

USERS, ITEMS = "users", "items"
SPLIT = "everything"  # users are split by time later, not here; TFDS reserves "all"
NOTES_FILE = "notes.json"  # written last: what cleaning counted, and a hash of every other file
TRUTH_FOLDER = "truth"


class TableConfig(tfds.core.BuilderConfig):
    """Names the table to write: `users` or `items`."""


class _OwnInfo(tfds.core.DatasetInfo):
    """What is known of a table that was made here."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS would ask its bucket for each new table, and leave a folder in tmp."""


class RawBuilder(tfds.core.GeneratorBasedBuilder):
    """Writes a RawDataset; a data set's own class only says what it is."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[TableConfig]] = [
        TableConfig(name=USERS, description="histories in time order"),
        TableConfig(name=ITEMS, description="items with their features"),
    ]
    url_infos: ClassVar[dict] = {}  # nothing is downloaded, so no checksums are looked for
    about = ""
    homepage = ""
    citation = ""

    def __init__(self, raw: RawDataset, **kwargs: Any) -> None:
        """Keeps the data set to write.

        Args:
          raw: what to write.
          **kwargs: of the TFDS builder, `config` and `data_dir` above all.
        """
        self._raw = raw
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        table = user_features() if self.builder_config.name == USERS else item_features(self._raw)
        return _OwnInfo(
            builder=self,
            description=self.about,
            features=tfds.features.FeaturesDict(table),
            homepage=self.homepage or None,
            citation=self.citation or None,
            disable_shuffling=True,  # rows keep the numbers of users and items
            metadata=tfds.core.MetadataDict(summarise(self._raw)),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # the data set is at hand
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = user_rows if self.builder_config.name == USERS else item_rows
        return enumerate(rows(self._raw))


class Synthetic(RawBuilder):
    """The synthetic world."""

    name = "synthetic"
    about = "Choices with planted preferences and drifts; says nothing about accuracy elsewhere."


class Movielens1M(RawBuilder):
    """MovieLens-1M."""

    name = "movielens_1m"
    about = "MovieLens-1M in time order, with poster and plot features."
    homepage = "https://grouplens.org/datasets/movielens/1m/"
    citation = "Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015"


class Movielens100K(RawBuilder):
    """MovieLens-100K."""

    name = "movielens_100k"
    about = "MovieLens-100K with times, and poster and plot features of MovieLens-1M."
    homepage = "https://grouplens.org/datasets/movielens/100k/"
    citation = "Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015"


class Amazon2014(RawBuilder):
    """One category of the Amazon reviews of 2014."""

    name = "amazon_2014"
    about = "Amazon reviews of 2014, 5-core, in time order, with title and attribute features."
    homepage = "https://jmcauley.ucsd.edu/data/amazon/"
    citation = "McAuley et al., Image-based Recommendations on Styles and Substitutes, SIGIR 2015"


class SiTunes(RawBuilder):
    """SiTunes."""

    name = "situnes"
    about = "Plays of songs in time order, with acoustic descriptors, genre and singer."
    homepage = "https://github.com/JiayuLi-997/SiTunes_dataset"
    citation = "SiTunes: A Situational Music Recommendation Dataset, CHIIR 2024"


class Folder(RawBuilder):
    """The user's own data."""

    name = "folder"
    about = "RecBole atomic files and feature tables of the user."


BUILDERS: dict[str, type[RawBuilder]] = {
    builder.name: builder
    for builder in (Synthetic, Movielens1M, Movielens100K, Amazon2014, SiTunes, Folder)
}


def user_features() -> dict[str, Any]:
    """Columns of the users table."""
    return {
        "user_id": tfds.features.Text(),
        "history": tfds.features.Tensor(shape=(None,), dtype=np.int32),
        "times": tfds.features.Tensor(shape=(None,), dtype=np.int64),
    }


def item_features(raw: RawDataset) -> dict[str, Any]:
    """Columns of the items table; modality columns are `vector:<name>` and `tokens:<name>`."""
    catalogue = raw.catalogue
    vectors = {
        f"vector_{name}": tfds.features.Tensor(shape=(table.shape[1],), dtype=np.float32)
        for name, table in catalogue.vectors.items()
    }
    tokens = {
        f"tokens_{name}": tfds.features.Tensor(shape=(None,), dtype=np.int32)
        for name in catalogue.tokens
    }
    return {
        "item_id": tfds.features.Text(),
        "title": tfds.features.Text(),
        "categories": tfds.features.Text(),
        **vectors,
        **tokens,
    }


def summarise(raw: RawDataset) -> dict[str, Any]:
    """What a reader must know that no row says."""
    return {
        "has_times": raw.interactions.times is not None,
        "n_items": raw.catalogue.n_items,
        "vectors": sorted(raw.catalogue.vectors),
        "tokens": sorted(raw.catalogue.tokens),
    }


def user_rows(raw: RawDataset) -> Iterator[dict[str, Any]]:
    """One dict per user, in order."""
    interactions = raw.interactions
    borders = interactions.offsets
    for user, user_id in enumerate(interactions.user_ids):
        own = slice(borders[user], borders[user + 1])
        times = interactions.times
        yield {
            "user_id": str(user_id),
            "history": interactions.items[own],
            "times": np.zeros(0, np.int64) if times is None else times[own],
        }


def item_rows(raw: RawDataset) -> Iterator[dict[str, Any]]:
    """One dict per item, in order, padding left out."""
    catalogue = raw.catalogue
    for row in range(1, catalogue.n_items + 1):
        yield {
            "item_id": str(catalogue.item_ids[row]),
            "title": str(catalogue.titles[row]),
            "categories": str(catalogue.categories[row]),
            **{f"vector_{name}": table[row] for name, table in catalogue.vectors.items()},
            **{f"tokens_{name}": bags[row] for name, bags in catalogue.tokens.items()},
        }


def write(raw: RawDataset, data_dir: Path, name: str = "folder") -> None:
    """Writes both tables, the notes and the truth.

    Args:
      raw: the data set.
      data_dir: an empty or new folder; write into a temporary one and rename it to be atomic.
      name: which builder, a key of BUILDERS.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    for table in (USERS, ITEMS):
        builder = BUILDERS[name](raw, config=table, data_dir=data_dir)
        settings = tfds.download.DownloadConfig(try_download_gcs=False)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of downloads, there are none
            builder.download_and_prepare(download_dir=data_dir, download_config=settings)
    (data_dir / TRUTH_FOLDER).mkdir(exist_ok=True)
    for key, values in raw.truth.items():
        np.save(data_dir / TRUTH_FOLDER / f"{key}.npy", values, allow_pickle=False)
    files = [path for path in sorted(data_dir.rglob("*/*")) if path.is_file()]
    hashes = {path.relative_to(data_dir).as_posix(): _sha256(path) for path in files}
    content = {"notes": raw.notes, "sha256": hashes}
    (data_dir / NOTES_FILE).write_text(json.dumps(content, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(data_dir: Path) -> RawDataset:
    """Reads back all that `write` wrote.

    Raises:
      InputError: a file is missing or torn; names it and the remedy.
    """
    notes = check_files(data_dir)
    return RawDataset(
        _read_interactions(data_dir),
        _read_catalogue(data_dir),
        notes,
        _read_truth(data_dir),
    )


def check_files(data_dir: Path) -> dict[str, int]:
    """Compares every file with the hash taken when it was written.

    ArrayRecord returns empty rows from some torn files without a word, so this cannot be left to
    its reader.

    Returns:
      What cleaning counted.

    Raises:
      InputError: a file is missing or torn; names it and the remedy.
    """
    path = data_dir / NOTES_FILE
    try:
        content = json.loads(path.read_text())
        notes, hashes = content["notes"], content["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _torn(path, data_dir) from error
    for name, expected in hashes.items():
        path = data_dir / name
        if not path.is_file() or _sha256(path) != expected:
            raise _torn(path, data_dir)
    return notes


def _torn(path: Path, data_dir: Path) -> InputError:
    return InputError(f"{path}: missing or torn; delete {data_dir} and run again")


def _read_interactions(data_dir: Path) -> Interactions:
    rows, summary = _read_table(data_dir, USERS)
    lengths = [len(row["history"]) for row in rows]
    times = np.concatenate([row["times"] for row in rows]) if summary["has_times"] else None
    return Interactions(
        user_ids=np.array([row["user_id"].decode() for row in rows]),
        items=np.concatenate([row["history"] for row in rows]).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        times=times,
        n_items=int(summary["n_items"]),
    )


def _read_catalogue(data_dir: Path) -> Catalogue:
    rows, summary = _read_table(data_dir, ITEMS)

    def text(field: str) -> np.ndarray:
        return np.array(["", *(row[field].decode() for row in rows)])

    vectors = {}
    for name in summary["vectors"]:
        values = np.stack([row[f"vector_{name}"] for row in rows]).astype(np.float32)
        vectors[name] = np.concatenate([np.full_like(values[:1], np.nan), values])
    empty = np.zeros(0, np.int32)
    return Catalogue(
        item_ids=text("item_id"),
        titles=text("title"),
        categories=text("categories"),
        vectors=vectors,
        tokens={
            name: (empty, *(row[f"tokens_{name}"] for row in rows)) for name in summary["tokens"]
        },
    )


def _read_truth(data_dir: Path) -> dict[str, np.ndarray]:
    paths = sorted((data_dir / TRUTH_FOLDER).glob("*.npy"))
    return {path.stem: np.load(path, allow_pickle=False) for path in paths}


def _read_table(data_dir: Path, table: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows of one table, in order, and what `summarise` said."""
    folders = sorted(data_dir.glob(f"*/{table}/{RawBuilder.VERSION}"))
    if len(folders) != 1:
        raise InputError(
            f"{data_dir}: holds {len(folders)} tables of {table}, expected one; delete {data_dir} "
            "and run again"
        )
    builder = tfds.builder_from_directory(folders[0])
    source = builder.as_data_source(split=SPLIT)
    return source.__getitems__(range(len(source))), dict(builder.info.metadata)
