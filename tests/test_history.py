"""history.jsonl and the TensorBoard file: what is written, and what a resumed run takes back."""

import errno
import json
import os
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from semid_jax.train.history import History
from semid_jax.types import InputError


def events(path):
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("Q", data[:8])
        assert struct.unpack("I", data[8:12])[0] == masked_crc32c(data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
        found.append(Event.FromString(body))
        data = data[16 + length :]
    return found


def test_a_resumed_run_cuts_both_files_back(tmp_path):
    lines, board = tmp_path / "results" / "history.jsonl", tmp_path / "results" / "tensorboard"
    first = History(lines, board, 0)
    for step in (10, 20):
        first.write(step, {"validation.ndcg@10": step / 100})
    first.close()
    with lines.open("a") as file:
        file.write('{"step": 30, "valid')  # torn by a kill
    again = History(lines, board, 10)
    again.write(20, {"validation.ndcg@10": 0.5})
    again.close()
    steps = [json.loads(line) for line in lines.read_text().splitlines()]
    assert steps == [
        {"step": 10, "validation.ndcg@10": 0.1},
        {"step": 20, "validation.ndcg@10": 0.5},
    ]
    old, new = (events(path) for path in sorted(board.iterdir()))
    assert [e.step for e in old] == [1, 1, 10, 20]
    assert [e.step for e in new] == [11, 11, 20]
    assert new[1].session_log.status == SessionLog.START
    (value,) = new[2].summary.value
    assert value.tag.startswith("validation.ndcg_at_10")
    assert abs(value.simple_value - 0.5) < 1e-6


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    history = History(tmp_path / "history.jsonl", tmp_path / "tensorboard", 0)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(history._events, "flush", full)
    with pytest.raises(InputError, match="the disk is full"):
        history.write(1, {"a": 1.0})
    history.close()
