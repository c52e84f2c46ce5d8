"""Files and folders: whole or absent, and errors that name the place."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semid_jax import disk
from semid_jax.types import InputError


def test_other_errors_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    for named in ("/elsewhere/data.csv", str(tmp_path / "neighbour")):
        other = PermissionError(errno.EACCES, "Permission denied", named)
        with pytest.raises(PermissionError), disk.atomic_folder(tmp_path / "data"):
            raise other
        assert list(tmp_path.iterdir()) == []


def test_full_disk_elsewhere_is_named() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere")
    with (
        pytest.raises(InputError, match="/tmp/elsewhere: the disk is full"),
        disk.disk_errors(Path("w")),
    ):
        raise full


def test_what_a_killed_write_of_a_file_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from semid_jax import disk\n"
        "with disk.whole_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    disk.write_json(path, {"a": 1})
    assert [left.name for left in path.parent.iterdir()] == ["metrics.json"]


def test_json_is_plain_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "metrics.json"
    disk.write_json(path, {"a": 1})
    value = {
        "ndcg": np.float32(0.5),
        "rank": np.int64(3),
        "list": np.arange(2),
        "none": float("nan"),
        "place": tmp_path,
        "pair": (True, float("inf")),
    }
    disk.write_json(path, value)
    assert json.loads(path.read_text()) == {
        "ndcg": 0.5,
        "rank": 3,
        "list": [0, 1],
        "none": None,
        "place": str(tmp_path),
        "pair": [True, None],
    }
    with pytest.raises(TypeError):
        disk.write_json(path, {"a": object()})
    assert [left.name for left in path.parent.iterdir()] == ["metrics.json"]
