"""Checkpoints of a training run through Orbax: the latest two and the best one are kept."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from semid_jax.types import InputError

METRIC = "validation.ndcg@10"


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    """Says in one line that the disk is full, however Orbax and tensorstore put it."""
    try:
        yield
    except Exception as error:
        text = str(error)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
            for part in directory.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
            raise InputError(
                f"{directory}: the disk is full, the checkpoint was not written; free some space "
                "and run the same command, it continues from the last complete checkpoint"
            ) from error
        raise


def tree_hash(tree: Any) -> str:
    """sha256, in hexadecimal, of a tree's names, shapes, types and numbers."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Checkpoints:
    """Saves and restores (state pytree, notes as JSON)."""

    def __init__(self, directory: Path) -> None:
        """Opens, or creates, the folder; half-written checkpoints are removed."""
        policies = ocp.training.preservation_policies
        self._directory = Path(directory).absolute()
        with _disk_errors(self._directory):
            self._checkpointer = ocp.training.Checkpointer(
                self._directory,
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(2),
                        policies.BestN(
                            get_metric_fn=lambda metrics: metrics[METRIC],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                cleanup_tmp_directories=True,
            )

    def save(self, step: int, state: Any, notes: dict[str, Any], metric: float | None) -> None:
        """Writes one checkpoint; returns when it is complete.

        Args:
          step: its number.
          state: pytree of arrays.
          notes: JSON, e.g. the iterator's state.
          metric: validation NDCG@10, or None between evaluations.
        """
        with _disk_errors(self._directory):
            self._checkpointer.save(
                step,
                state,
                custom_metadata=notes,
                metrics=None if metric is None else {METRIC: float(metric)},
                overwrite=True,
            )

    def latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest complete checkpoint, or None.

        Args:
          like: a state of the same shapes.
        """
        newest = self._checkpointer.latest
        return None if newest is None else self.load(newest.step, like)

    def load(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """A certain checkpoint.

        Raises:
          InputError: it is torn, or of another model.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(np.shape(a), np.asarray(a).dtype, sharding=here), like
        )
        try:
            state = self._checkpointer.load(step, abstract)
            notes = self._checkpointer.metadata(step).custom_metadata
        except Exception as error:
            raise InputError(
                f"{self._directory}/{step}: the checkpoint cannot be read "
                f"({type(error).__name__}); delete {self._directory} to train again"
            ) from error
        return jax.device_get(state), dict(notes or {})

    def close(self) -> None:
        """Waits for what is being written."""
        self._checkpointer.close()
