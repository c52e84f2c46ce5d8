"""Which data set to read, and from where."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from semid_jax import disk
from semid_jax.data.amazon import read_amazon_2014
from semid_jax.data.folder import read_folder
from semid_jax.data.movielens import read_movielens_1m, read_movielens_100k
from semid_jax.data.situnes import read_situnes
from semid_jax.data.source import SHORTEST_HISTORY, RawDataset
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.types import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to read.

    Attributes:
      name: a key of READERS, or "synthetic".
      source_dir: its folder; "" for $SEMID_DATA/<name> or ../shared/data/<name>.
      category: of amazon_2014, e.g. "Beauty".
      min_interactions: users with fewer are dropped, at least 3.
      expand: items of the catalogue after new ones were drawn around those that were read, see
        `data.expansion`; 0 leaves it as it is.
    """

    name: str = "synthetic"
    source_dir: str = ""
    category: str = ""
    min_interactions: int = SHORTEST_HISTORY
    expand: int = 0


CATEGORISED = "amazon_2014"  # whose folder has one per category
READERS: dict[str, Callable[[DataConfig, Path], RawDataset]] = {
    "movielens_1m": lambda config, path: read_movielens_1m(path, config.min_interactions),
    "movielens_100k": lambda config, path: read_movielens_100k(path, config.min_interactions),
    "amazon_2014": lambda config, path: read_amazon_2014(
        path, config.category, config.min_interactions
    ),
    "situnes": lambda config, path: read_situnes(path, config.min_interactions),
    "folder": lambda config, path: read_folder(path, config.min_interactions),
}


def check_name(name: str) -> None:
    """Refuses an unknown data set.

    Raises:
      InputError: names near misses.
    """
    known = ("synthetic", *READERS)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise InputError(
            f"data.name = {name!r} is unknown"
            + (f", did you mean {near[0]!r}?" if near else ";")
            + f" known are {', '.join(known)}"
        )


def source_path(config: DataConfig) -> Path:
    """The folder to read, which must exist.

    Raises:
      InputError: there is no such folder, or none is given for `folder`.
    """
    if config.source_dir:
        path = Path(config.source_dir).expanduser()
    elif config.name == "folder":
        raise InputError("data.source_dir is empty: name the folder of your data set")
    else:
        path = Path(os.environ.get("SEMID_DATA", SHARED)) / config.name
    if not path.is_dir():
        raise InputError(
            f"{path}: no such folder; set data.source_dir to the {config.name} folder, or "
            "SEMID_DATA to the folder that holds it"
        )
    return path


def source_folders(config: DataConfig) -> list[Path]:
    """The folders whose files a data set is read from.

    Raises:
      InputError: see `source_path`.
    """
    path = source_path(config)
    if config.name == CATEGORISED:
        return [path / config.category]
    if config.name == "movielens_100k":  # its movies are described there
        return [path, path.parent / "movielens_1m"]
    return [path]


def source_hash(config: DataConfig) -> str:
    """A hash of the names and bytes of all files that a data set is read from.

    Raises:
      InputError: the folder is not there, or a file cannot be read.
    """
    known = hashlib.sha256()
    for folder in source_folders(config):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            try:
                of_file = disk.file_hash(path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
            known.update(f"{path.relative_to(folder).as_posix()} {of_file}\n".encode())
    return known.hexdigest()


def read(config: DataConfig, synthetic: SyntheticConfig | None = None) -> RawDataset:
    """Reads, or generates, a data set.

    Args:
      config: which.
      synthetic: the world to generate if name is "synthetic"; None for the default one.

    Raises:
      InputError: unknown name, missing folder, or anything wrong in the files.
    """
    check_name(config.name)
    if config.name == "synthetic":
        return generate(synthetic or SyntheticConfig())
    return READERS[config.name](config, source_path(config))
