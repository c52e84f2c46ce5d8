"""Artefact directories: what one stage writes and the next one reads, whole or not at all.

A directory is filled under a temporary name beside its place and renamed, so that it is either
complete or absent, also after `kill -9`. Its `manifest.json`, written last, says what it holds,
from which configuration and inputs it came, and the hash of every file; reading checks them all.
Nothing is ever pickled: arrays are `.npy` files, everything else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from semid_jax import disk, provenance
from semid_jax.types import InputError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

_AGAIN = "delete {directory} and run the same command again"


def write(
    directory: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Writes arrays as one artefact, in place of an older one of the same kind.

    Args:
      directory: where it will lie; its parents are made.
      kind: which stage's artefact it is, e.g. "tokenizer".
      arrays: name -> array of numbers, booleans or strings; a "/" in a name makes a folder.
      inputs: name -> content hash of each artefact that it was made from.
      config: the part of the configuration that it depends on.
      extra: anything else that JSON can hold.

    Returns:
      The content hash: equal hashes mean equal arrays, kind and configuration.

    Raises:
      InputError: the disk is full or not writable, or the place holds something else.
    """
    directory = Path(directory)
    _refuse_foreign(directory, kind)
    with disk.atomic_folder(directory) as folder:
        table = {name: _save_array(folder, name, array) for name, array in sorted(arrays.items())}
        return seal(folder, kind, inputs, config, extra, arrays=table)


def read(
    directory: Path, kind: str, mmap: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads an artefact's arrays after checking every file against its hash.

    Args:
      directory: the artefact.
      kind: what it must be.
      mmap: map the arrays from disk, read-only, instead of loading them.

    Returns:
      name -> array, and the manifest.

    Raises:
      InputError: it is missing, torn, of another kind or of another format.
    """
    directory = Path(directory)
    manifest = check(directory, kind)
    arrays = {}
    for name, entry in manifest["arrays"].items():
        path = directory / entry["file"]
        try:
            array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _torn(path, directory, "is not a readable .npy file") from error
        if list(array.shape) != entry["shape"] or array.dtype.name != entry["dtype"]:
            raise _torn(path, directory, "has another shape or type than the manifest says")
        arrays[name] = array
    return arrays, manifest


def matches(
    directory: Path, kind: str, inputs: Mapping[str, str], config: Mapping[str, Any]
) -> bool:
    """Says whether a stage may be skipped: the artefact is complete and made from just this.

    Sizes are compared here, hashes when the artefact is read.

    Args:
      directory: the artefact, which may be absent.
      kind: what it must be.
      inputs: name -> content hash, as they are now.
      config: the part of the configuration that it depends on, as it is now.

    Returns:
      True if the stage has nothing to do, False if it must run.

    Raises:
      InputError: something else lies in its place, or files of it are missing or cut short.
    """
    directory = Path(directory)
    if _is_absent(directory):
        return False
    manifest = _manifest(directory, kind)
    for file, entry in manifest["files"].items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise _torn(path, directory, "is missing or cut short")
    return manifest["config_hash"] == config_hash(config) and manifest["inputs"] == dict(inputs)


def borrow(workdir: Path, lender: Path, stages: Sequence[str]) -> None:
    """Links what stages of one run have made into another run that has not made it yet.

    Those that the other would make alike are skipped there (see `matches`); one that it makes anew
    takes the place of the links, and the lender's files stay as they are.

    Args:
      workdir: of the run that borrows.
      lender: workdir of the other.
      stages: names of folders in both.

    Raises:
      InputError: the disk is full or not writable.
    """
    for stage in stages:
        if (lender / stage).exists() and not (workdir / stage).exists():
            with disk.atomic_folder(workdir / stage) as folder:
                shutil.copytree(
                    lender / stage, folder, copy_function=_link_or_copy, dirs_exist_ok=True
                )


def content_hash(directory: Path) -> str:
    """The content hash of an artefact, as its manifest has it.

    Raises:
      InputError: there is no sound manifest.
    """
    return str(_manifest(Path(directory), None)["content_hash"])


def read_inputs(directory: Path) -> dict[str, str]:
    """What an artefact was made from: name -> content hash.

    Raises:
      InputError: there is no sound manifest.
    """
    return dict(_manifest(Path(directory), None)["inputs"])


def read_extra(directory: Path) -> dict[str, Any]:
    """What else an artefact's manifest notes, as its stage gave it to `write` or `seal`.

    Raises:
      InputError: there is no sound manifest.
    """
    return dict(_manifest(Path(directory), None)["extra"])


def seal(
    folder: Path,
    kind: str,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    *,
    arrays: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Writes the manifest over whatever files a folder holds; the last act of making an artefact.

    `write` does this for arrays; call it inside `disk.atomic_folder` for files of other formats.

    Args:
      folder: the folder, still under its temporary name.
      kind: which stage's artefact it is.
      inputs: name -> content hash of each artefact that it was made from.
      config: the part of the configuration that it depends on.
      extra: anything else that JSON can hold.
      arrays: name -> file, shape and dtype, of those files that are arrays.

    Returns:
      The content hash.
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": disk.file_hash(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config_hash": config_hash(config),
        "files": files,
        "arrays": dict(arrays or {}),
        "inputs": dict(inputs),
        "config": config,
        "extra": dict(extra or {}),
        "versions": provenance.versions(),
        "revision": provenance.revision(),
    }
    manifest["content_hash"] = _content_hash(manifest)
    disk.write_json(folder / MANIFEST, manifest)
    return str(manifest["content_hash"])


def check(directory: Path, kind: str) -> dict[str, Any]:
    """Checks every file of an artefact against its hash.

    Args:
      directory: the artefact.
      kind: what it must be.

    Returns:
      The manifest.

    Raises:
      InputError: it is missing, torn, of another kind or of another format.
    """
    directory = Path(directory)
    manifest = _manifest(directory, kind)
    for file, entry in manifest["files"].items():
        path = directory / file
        if not path.is_file():
            raise _torn(path, directory, "is missing")
        if disk.file_hash(path) != entry["sha256"]:
            raise _torn(path, directory, "is not what was written (its hash differs)")
    return manifest


@contextmanager
def of_this_revision(directory: Path) -> Iterator[None]:
    """Says in one line that what an artefact holds has the names of another revision.

    Raises:
      InputError: in place of TypeError and KeyError.
    """
    try:
        yield
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{directory}: of another semid_jax ({error}); use the revision that config.json "
            "names, or train in another --workdir"
        ) from error


def config_hash(config: Mapping[str, Any]) -> str:
    """The hash of a configuration; the order of its keys does not matter.

    Args:
      config: nested mapping of plain values; dataclasses and tuples are taken as such.

    Returns:
      sha256 in hexadecimal.
    """
    text = json.dumps(disk.plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Sink:
    """A file that numpy does not know for one: on real files it uses tofile, which loses errno."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)


def _save_array(folder: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    """Writes one array and returns its line in the manifest."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise ValueError(f"array name {name!r} is not a path inside the artefact")
    array = np.asarray(array)
    if array.dtype.kind not in "biufcU":
        raise TypeError(f"array {name!r} has dtype {array.dtype}, which .npy cannot hold")
    path = folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        np.lib.format.write_array(_Sink(file), array, allow_pickle=False)
    return {
        "file": path.relative_to(folder).as_posix(),
        "shape": list(array.shape),
        "dtype": array.dtype.name,
    }


def _manifest(directory: Path, kind: str | None) -> dict[str, Any]:
    """Reads a manifest and checks it against itself, the format and the kind."""
    path = directory / MANIFEST
    wanted = kind or "artefact"
    if _is_absent(directory):
        raise InputError(f"{directory}: no {wanted} here; run the launcher on its workdir first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path}: missing, so {directory} is no {wanted} of ours or a torn one; "
            f"{_AGAIN.format(directory=directory)}, or choose another --workdir"
        ) from error
    except ValueError as error:
        raise _torn(path, directory, "is not JSON") from error
    if not isinstance(manifest, dict) or "format_version" not in manifest:
        raise _torn(path, directory, "has no field format_version")
    if manifest["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version is {manifest['format_version']}, this code reads "
            f"{FORMAT_VERSION}; {_AGAIN.format(directory=directory)}"
        )
    if kind is not None and manifest.get("kind") != kind:
        raise InputError(
            f"{path}: kind is {manifest.get('kind')!r}, expected {kind!r}; "
            f"{_AGAIN.format(directory=directory)}, or choose another --workdir"
        )
    try:
        sound = manifest["content_hash"] == _content_hash(manifest)
        sound = sound and {"inputs", "arrays"} <= manifest.keys()
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise _torn(path, directory, "contradicts itself")
    return manifest


def _content_hash(manifest: Mapping[str, Any]) -> str:
    files = {file: entry["sha256"] for file, entry in manifest["files"].items()}
    return config_hash(
        {"files": files, "kind": manifest["kind"], "config_hash": manifest["config_hash"]}
    )


def _link_or_copy(source: str, target: str) -> None:
    """Not every disk knows links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _torn(path: Path, directory: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; {_AGAIN.format(directory=directory)}")


def _is_absent(directory: Path) -> bool:
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def _refuse_foreign(directory: Path, kind: str) -> None:
    """Keeps a stage from overwriting what it did not make."""
    if not _is_absent(directory):
        _manifest(directory, kind)
