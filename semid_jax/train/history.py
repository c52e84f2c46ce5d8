"""What training says of itself: history.jsonl and a TensorBoard file, line by line."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from semid_jax import disk


class History:
    """Writes one line per evaluation to both; a resumed run cuts both back to its checkpoint.

    TensorBoard's events are written by the caller's thread and not, as by tensorboardX's own
    writer, by a thread that a full disk kills with a traceback.
    """

    def __init__(self, path: Path, tensorboard: Path, step: int) -> None:
        """Keeps lines up to `step`, drops the rest.

        Args:
          path: history.jsonl.
          tensorboard: folder of the event files.
          step: where the run stands.

        Raises:
          InputError: the disk is full or not writable.
        """
        self._path = path
        with disk.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            tensorboard.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines() if path.exists() else []
            with disk.whole_file(path) as temporary:
                kept = [line for line in lines if _step_of(line) <= step]
                temporary.write_text("".join(line + "\n" for line in kept))
            name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            self._events = RecordWriter(str(tensorboard / name))
            self._add(Event(step=step + 1, file_version="brain.Event:2"))
            # What other files hold from here on is void.
            self._add(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
            self._events.flush()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one evaluation.

        Args:
          step: of the training.
          values: name -> number.

        Raises:
          InputError: the disk is full.
        """
        with disk.disk_errors(self._path):
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._add(Event(step=step, summary=scalar(name.replace("@", "_at_"), value)))
            self._events.flush()

    def close(self) -> None:
        """Ends the TensorBoard file."""
        self._events.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line torn by a kill
