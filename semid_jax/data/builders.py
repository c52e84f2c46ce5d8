"""TensorFlow Datasets builders, written as ArrayRecord and read back without TensorFlow.

Every data set is stored in the same two tables, one builder config each: `users` (one history per
row) and `items` (one item per row, with its features). What cleaning counted, and the planted truth
of a synthetic world, lie beside them.
"""

from __future__ import annotations

import contextlib
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
NOTES_FILE = "notes.json"
TRUTH_FOLDER = "truth"


class TableConfig(tfds.core.BuilderConfig):
    """Names the table to write: `users` or `items`."""


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
        return tfds.core.DatasetInfo(
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


class Folder(RawBuilder):
    """The user's own data."""

    name = "folder"
    about = "RecBole atomic files and feature tables of the user."


BUILDERS: dict[str, type[RawBuilder]] = {
    builder.name: builder for builder in (Synthetic, Movielens1M, Movielens100K, Amazon2014, Folder)
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
    (data_dir / NOTES_FILE).write_text(json.dumps(raw.notes, indent=1) + "\n")
    (data_dir / TRUTH_FOLDER).mkdir(exist_ok=True)
    for key, values in raw.truth.items():
        np.save(data_dir / TRUTH_FOLDER / f"{key}.npy", values, allow_pickle=False)


def read(data_dir: Path) -> RawDataset:
    """Reads back all that `write` wrote.

    Raises:
      InputError: a file is missing or torn; names it and the remedy.
    """
    notes_path = data_dir / NOTES_FILE
    with _remedy(notes_path, data_dir):
        notes = json.loads(notes_path.read_text())
    return RawDataset(
        read_interactions(data_dir), read_catalogue(data_dir), notes, read_truth(data_dir)
    )


def read_interactions(data_dir: Path) -> Interactions:
    """Reads the users table.

    Raises:
      InputError: a file is missing or torn; names it and the remedy.
    """
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


def read_catalogue(data_dir: Path) -> Catalogue:
    """Reads the items table.

    Raises:
      InputError: a file is missing or torn; names it and the remedy.
    """
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


def read_truth(data_dir: Path) -> dict[str, np.ndarray]:
    """Reads the planted truth of a synthetic world, {} for real data.

    Raises:
      InputError: a file is torn; names it and the remedy.
    """
    truth = {}
    for path in sorted((data_dir / TRUTH_FOLDER).glob("*.npy")):
        with _remedy(path, data_dir):
            truth[path.stem] = np.load(path, allow_pickle=False)
    return truth


def _read_table(data_dir: Path, table: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows of one table, in order, and what `summarise` said."""
    folders = sorted(data_dir.glob(f"*/{table}/{RawBuilder.VERSION}"))
    if len(folders) != 1:
        raise InputError(
            f"{data_dir}: holds {len(folders)} tables of {table}, expected one; delete {data_dir} "
            "and run again"
        )
    shards = ", ".join(str(path) for path in sorted(folders[0].glob("*.array_record*")))
    with _remedy(shards or folders[0], data_dir):
        builder = tfds.builder_from_directory(folders[0])
        source = builder.as_data_source(split=SPLIT)
        rows = source.__getitems__(range(len(source)))
        expected = builder.info.splits[SPLIT].num_examples
        if len(rows) != expected:
            raise ValueError(f"{len(rows)} rows, expected {expected}")
        return rows, dict(builder.info.metadata)


@contextlib.contextmanager
def _remedy(path: Path | str, data_dir: Path) -> Iterator[None]:
    """Turns whatever a reader throws at a torn file into one line."""
    try:
        yield
    except Exception as error:  # array_record and protobuf raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: missing or torn ({reason[:80]}); delete {data_dir} and run again"
        ) from error
