"""Which checkpoints are kept, and what a full disk or a torn one looks like."""

import errno

import numpy as np
import pytest

from semid_jax.checkpoint import Checkpoints
from semid_jax.types import InputError


def state(value):
    return {"w": np.full(3, value, np.float32), "step": np.asarray(value, np.int32)}


def test_latest_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    for step, metric in ((1, 0.1), (2, 0.5), (3, None), (4, 0.2), (5, 0.3)):
        checkpoints.save(step, state(step), {"step": step}, metric)
    checkpoints.close()
    kept = sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit())
    assert kept == [2, 4, 5]
    again = Checkpoints(tmp_path / "c")
    found, notes = again.latest(state(0))
    assert notes == {"step": 5}
    np.testing.assert_array_equal(found["w"], np.full(3, 5, np.float32))
    np.testing.assert_array_equal(again.load(2, state(0))[0]["w"], np.full(3, 2, np.float32))
    again.close()


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state(1), {}, 0.1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._checkpointer, "save", full)
    with pytest.raises(InputError, match="the disk is full, the checkpoint was not written"):
        checkpoints.save(2, state(2), {}, 0.2)
    assert checkpoints.latest(state(0))[0]["step"] == 1


def test_a_torn_checkpoint_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state(1), {}, 0.1)
    for path in (tmp_path / "c" / "1").rglob("*"):
        if path.is_file() and path.parent.name != "1" and "metadata" not in path.name.lower():
            path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        checkpoints.load(1, state(0))
