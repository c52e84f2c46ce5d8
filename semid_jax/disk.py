"""Writing to disk so that a file or folder is there whole or not at all, also after `kill -9`."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semid_jax.types import InputError

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def atomic_folder(directory: Path) -> Iterator[Path]:
    """Lends a temporary folder that takes the directory's place on success and is gone on error.

    Args:
      directory: the final place; what lies there is replaced.

    Yields:
      The temporary folder, on the same disk.

    Raises:
      InputError: the disk is full or not writable.
    """
    directory = Path(os.path.abspath(directory))
    with disk_errors(directory), _temporary_beside(directory) as folder:
        folder.chmod(0o777 & ~_umask())
        yield folder
        _sync(folder)
        _replace(folder, directory)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lends a temporary file that takes the place of `path` on success and is gone on error.

    Args:
      path: the final place; its folder is made, an older file there is replaced.

    Yields:
      A path in a temporary folder beside it, of the same name.

    Raises:
      InputError: the disk is full or not writable.
    """
    path = Path(os.path.abspath(path))
    with disk_errors(path), _temporary_beside(path) as folder:
        temporary = folder / path.name
        yield temporary
        os.replace(temporary, path)


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that readers see the old file or the new one, never a part.

    Args:
      path: the file.
      value: what to write; dataclasses, tuples and numpy values become plain, numbers that are
        not finite become null.

    Raises:
      InputError: the disk is full or not writable.
    """
    path = Path(path)
    text = json.dumps(_finite(plain(value)), indent=2, allow_nan=False) + "\n"
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns a full or unwritable disk into one line for the user.

    Args:
      place: what was being written.

    Raises:
      InputError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or place
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{where}: the disk is full; nothing half-written was left: free space there, "
                "or choose another place with --workdir, and run the same command again"
            ) from error
        if error.errno in _UNWRITABLE and _is_about(error, place):
            raise InputError(
                f"{place}: cannot be written ({where}: {error.strerror}); choose another place "
                "with --workdir or change the permissions"
            ) from error
        raise


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses, tuples and numpy values become plain."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(folder: Path, directory: Path) -> None:
    """Renames over the directory; a directory that has files must step aside first."""
    if directory.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.tmp-", dir=directory.parent))
        os.rename(directory, aside / "old")
        try:
            os.rename(folder, directory)
        except BaseException:
            os.rename(aside / "old", directory)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(folder, directory)
    _sync_one(directory.parent)


@contextlib.contextmanager
def _temporary_beside(place: Path) -> Iterator[Path]:
    """Lends a locked folder on the same disk; those that killed runs left are removed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.tmp-", dir=place.parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    """Removes temporary folders of killed runs; a live one holds a lock on its folder."""
    for folder in place.parent.glob(f".{place.name}.tmp-*"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_about(error: OSError, place: Path) -> bool:
    """Whether an error names the place, what is in it or above it, or its temporary folder."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    named, place = Path(os.path.abspath(error.filename)), Path(os.path.abspath(place))
    temporary = named.is_relative_to(place.parent) and any(
        part.startswith(f".{place.name}.tmp-") for part in named.parts
    )
    return named.is_relative_to(place) or place.is_relative_to(named) or temporary


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
