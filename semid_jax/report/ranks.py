"""Where the test item of each user stood in a run of record, so that runs are paired later.

results/ranks/<experiment>/<name of the record>.json, beside the records and as small: a rank is one
byte, most are 0, and a set of test users is named by its hash.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zlib
from pathlib import Path

import numpy as np

from semid_jax import disk
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.ranking import target_ranks
from semid_jax.report.records import RANKS, read_json
from semid_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class TestRanks:
    """Ranks of one run.

    Attributes:
      split: hash of the test's users and items; runs with the same one can be paired.
      ranks: uint8[U], users ascending; from 1, 0 where the item is not in the list.
    """

    split: str
    ranks: np.ndarray

    @classmethod
    def of(cls, evaluation: Evaluation) -> TestRanks:
        """What an evaluation's lists of record say.

        Raises:
          InputError: the lists are longer than a byte counts.
        """
        side, items = evaluation.side, evaluation.lists.items
        if items.shape[1] > 255:
            raise InputError(f"decode.k: {items.shape[1]}, ranks of record are kept up to 255")
        order = np.argsort(side.users)
        key = np.stack([side.users[order], side.targets[order]]).astype("<i8")
        split = hashlib.sha256(key.tobytes()).hexdigest()
        return cls(split, target_ranks(items, side.targets)[order].astype(np.uint8))


def ranks_path(record: Path) -> Path:
    """Where the ranks of the record results/<experiment>/<name>.json lie."""
    return record.parent.parent / RANKS / record.parent.name / record.name


def write_ranks(record: Path, found: TestRanks) -> None:
    """Writes the ranks of a record; an older file is replaced.

    Args:
      record: the file of the record.
      found: of the same run.

    Raises:
      InputError: the disk is full or not writable.
    """
    packed = base64.b64encode(zlib.compress(found.ranks.tobytes(), 9)).decode()
    disk.write_json(ranks_path(record), {"split": found.split, "ranks": packed})


def read_ranks(record: Path) -> TestRanks:
    """Reads what `write_ranks` wrote.

    Raises:
      InputError: there are none, or the file is torn.
    """
    path = ranks_path(record)
    if not path.exists():
        raise InputError(f"{path}: no such file; keep the run again with semid_jax.report.keep")
    found = read_json(path)
    try:
        ranks = np.frombuffer(zlib.decompress(base64.b64decode(found["ranks"])), np.uint8)
        return TestRanks(found["split"], ranks)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: torn; keep the run again with semid_jax.report.keep") from error
