"""Artefacts: whole or absent, checked when read, and never in place of something else."""

import builtins
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semid_jax import artifacts, disk
from semid_jax.types import InputError

CONFIG = {"steps": 10, "rates": (0.1, 0.2), "name": "a"}
INPUTS = {"features": "abc"}


def example_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "codes/fine": rng.integers(0, 256, (5, 3)).astype(np.uint8),
        "codes/coarse": rng.integers(0, 9, 5).astype(np.int32),
        "vectors": rng.normal(size=(5, 2)).astype(np.float32),
        "titles": np.array(["", "Amélie", "七人の侍"]),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.float32(3.5),
        "mask": np.array([True, False]),
    }


def write_example(place: Path, **changes: Any) -> str:
    arguments = {"arrays": example_arrays(), "inputs": INPUTS, "config": CONFIG} | changes
    return artifacts.write(place, "tokenizer", **arguments)


def names_beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


@pytest.mark.parametrize("mmap", [False, True])
def test_reads_back_what_was_written(tmp_path: Path, mmap: bool) -> None:
    place = tmp_path / "deep" / "tokenizer"
    content = write_example(place, extra={"cells": 3})
    arrays, manifest = artifacts.read(place, "tokenizer", mmap=mmap)
    assert arrays.keys() == example_arrays().keys()
    for name, expected in example_arrays().items():
        assert arrays[name].dtype == np.asarray(expected).dtype
        assert np.array_equal(arrays[name], expected), name
    assert isinstance(arrays["vectors"], np.memmap) == mmap
    assert manifest["content_hash"] == content == artifacts.content_hash(place)
    assert manifest["extra"] == {"cells": 3}
    assert manifest["inputs"] == INPUTS
    assert manifest["arrays"]["codes/fine"]["shape"] == [5, 3]
    assert manifest["arrays"]["codes/fine"]["dtype"] == "uint8"
    assert manifest["versions"]["numpy"] == np.__version__
    assert names_beside(place) == ["tokenizer"]


def test_content_hash_follows_arrays_and_config_only(tmp_path: Path) -> None:
    first = write_example(tmp_path / "a")
    assert write_example(tmp_path / "b", inputs={"features": "other"}) == first
    assert write_example(tmp_path / "c", config=dict(reversed(CONFIG.items()))) == first
    assert write_example(tmp_path / "d", config=CONFIG | {"steps": 11}) != first
    arrays = example_arrays()
    arrays["vectors"][0, 0] += 1
    assert write_example(tmp_path / "e", arrays=arrays) != first


def test_matches_only_same_inputs_and_config(tmp_path: Path) -> None:
    place = tmp_path / "tokenizer"
    assert not artifacts.matches(place, "tokenizer", INPUTS, CONFIG)
    write_example(place)
    assert artifacts.matches(place, "tokenizer", INPUTS, CONFIG | {"rates": [0.1, 0.2]})
    assert not artifacts.matches(place, "tokenizer", INPUTS, CONFIG | {"steps": 11})
    assert not artifacts.matches(place, "tokenizer", {"features": "new"}, CONFIG)
    assert not artifacts.matches(place, "tokenizer", {}, CONFIG)


def test_replaces_an_older_artefact_of_its_kind(tmp_path: Path) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    write_example(place, arrays={"only": np.arange(3)})
    arrays, _ = artifacts.read(place, "tokenizer")
    assert list(arrays) == ["only"]
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "only.npy"]
    assert names_beside(place) == ["tokenizer"]


@pytest.mark.parametrize("disk_knows_links", [True, False])
def test_a_borrowed_artefact_is_read_as_the_lenders_and_made_anew_without_harm_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_knows_links: bool
) -> None:
    if not disk_knows_links:

        def refuse(source: str, target: str) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    lender, run = tmp_path / "lender", tmp_path / "run"
    first = write_example(lender / "tokenizer")
    artifacts.borrow(run, lender, ("data", "tokenizer"))
    assert not (run / "data").exists()
    assert artifacts.matches(run / "tokenizer", "tokenizer", INPUTS, CONFIG)
    linked = (run / "tokenizer" / "scalar.npy").samefile(lender / "tokenizer" / "scalar.npy")
    assert linked == disk_knows_links

    second = write_example(run / "tokenizer", arrays={"scalar": np.float32(4.5)})
    artifacts.borrow(run, lender, ("tokenizer",))  # it is there already
    assert artifacts.content_hash(run / "tokenizer") == second != first
    assert artifacts.read(lender / "tokenizer", "tokenizer")[0]["scalar"] == 3.5


def test_missing_artefact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer: no tokenizer here; run the launcher"):
        artifacts.read(tmp_path / "tokenizer", "tokenizer")


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_last_byte, "vectors.npy: is not what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "vectors.npy: is not what was"),
        (Path.unlink, "vectors.npy: is missing"),
    ],
)
def test_torn_array_is_refused_with_file_and_remedy(
    tmp_path: Path, damage: Any, message: str
) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    damage(place / "vectors.npy")
    with pytest.raises(InputError, match=message) as caught:
        artifacts.read(place, "tokenizer")
    assert f"delete {place} and run the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_skipping_refuses_cut_and_missing_files(tmp_path: Path) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    path = place / "codes" / "fine.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"fine.npy: is missing or cut short; delete"):
        artifacts.matches(place, "tokenizer", INPUTS, CONFIG)
    path.unlink()
    with pytest.raises(InputError, match=r"fine.npy: is missing or cut short; delete"):
        artifacts.matches(place, "tokenizer", INPUTS, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version is 99, this code reads 1; delete"),
        ({"kind": "index"}, "kind is 'index', expected 'tokenizer'; delete"),
        ({"config_hash": "0"}, "contradicts itself; delete"),
        ({"files": {}}, "contradicts itself; delete"),
        ({"files": None}, "contradicts itself; delete"),
    ],
)
def test_foreign_manifest_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    path = place / artifacts.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for use in (
        lambda: artifacts.read(place, "tokenizer"),
        lambda: artifacts.matches(place, "tokenizer", INPUTS, CONFIG),
        lambda: write_example(place),
    ):
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "has no field format_v")]
)
def test_broken_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    (place / artifacts.MANIFEST).write_text(text)
    with pytest.raises(InputError, match=message):
        artifacts.read(place, "tokenizer")


def test_somebody_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    place = tmp_path / "features"
    place.mkdir()
    (place / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"manifest.json: missing, so .*features is no features"):
        artifacts.write(place, "features", {}, {}, {})
    with pytest.raises(InputError, match="choose another --workdir"):
        artifacts.matches(place, "features", {}, {})
    assert (place / "thesis.txt").read_text() == "precious"


def test_pickles_are_neither_written_nor_read(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(TypeError, match=r"array 'x' has dtype object"):
        write_example(tmp_path / "tokenizer", arrays={"x": objects})
    assert list(tmp_path.iterdir()) == []
    with disk.atomic_folder(tmp_path / "tokenizer") as folder:
        np.save(folder / "x.npy", objects, allow_pickle=True)
        entry = {"file": "x.npy", "shape": [1], "dtype": "object"}
        artifacts.seal(folder, "tokenizer", {}, {}, arrays={"x": entry})
    with pytest.raises(InputError, match=r"x.npy: is not a readable .npy file"):
        artifacts.read(tmp_path / "tokenizer", "tokenizer")


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../x"])
def test_array_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a path inside the artefact"):
        write_example(tmp_path / "tokenizer", arrays={name: np.zeros(1)})


class FullDisk:
    """A file that takes a header and then no more."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 200

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def test_full_disk_leaves_the_old_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tokenizer"
    write_example(place)
    real_open = builtins.open

    def full_open(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        opened = real_open(file, mode, *rest, **named)
        return FullDisk(opened) if "x" in mode else opened

    monkeypatch.setattr(builtins, "open", full_open)
    with pytest.raises(
        InputError, match=rf"{re.escape(str(place))}: the disk is full; .*free space"
    ):
        write_example(place, arrays={"big": np.arange(1000)})
    monkeypatch.undo()
    assert names_beside(place) == ["tokenizer"]
    assert "vectors" in artifacts.read(place, "tokenizer")[0]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(.*file: File exists\); choose"):
        artifacts.write(tmp_path / "file" / "tokenizer", "tokenizer", {}, {}, {})


def test_folder_appears_only_when_complete(tmp_path: Path) -> None:
    place = tmp_path / "scann"
    with disk.atomic_folder(place) as folder:
        assert not place.exists()
        (folder / "part").write_text("1")
        content = artifacts.seal(folder, "scann", {"index": "i"}, {"probes": 16})
    assert artifacts.check(place, "scann")["content_hash"] == content
    assert artifacts.matches(place, "scann", {"index": "i"}, {"probes": 16})


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "scann"
    with disk.atomic_folder(place) as folder:
        (folder / "part").write_text("1")
        artifacts.seal(folder, "scann", {}, {})

    def fail() -> None:
        with disk.atomic_folder(place) as folder:
            (folder / "part").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (place / "part").read_text() == "1"
    assert names_beside(place) == ["scann"]
    (place / "part").write_text("3")
    with pytest.raises(InputError, match="part: is not what was written"):
        artifacts.check(place, "scann")


def test_killed_write_leaves_nothing_that_counts(tmp_path: Path) -> None:
    place = tmp_path / "tokenizer"
    code = (
        "import os, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from semid_jax import disk\n"
        "with disk.atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not place.exists()
    assert len(names_beside(place)) == 1
    assert not artifacts.matches(place, "tokenizer", INPUTS, CONFIG)
    write_example(place)
    assert names_beside(place) == ["tokenizer"]


def test_temporary_folder_of_a_live_run_is_left_alone(tmp_path: Path) -> None:
    live = tmp_path / ".tokenizer.tmp-live"
    live.mkdir()
    handle = os.open(live, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    write_example(tmp_path / "tokenizer")
    assert live.is_dir()
    os.close(handle)
    write_example(tmp_path / "tokenizer")
    assert not live.exists()


def test_config_hash_sees_values_not_order() -> None:
    assert artifacts.config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == artifacts.config_hash(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert artifacts.config_hash({"a": 1}) != artifacts.config_hash({"a": 2})
    assert artifacts.config_hash({"a": float("inf")}) != artifacts.config_hash({"a": None})
