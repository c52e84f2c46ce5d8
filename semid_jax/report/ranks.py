"""What each user of a run of record was shown, in few bytes, so that runs are paired later.

results/ranks/<experiment>/<name of the record>.json, beside the records: where the test item stood,
a byte that mostly is 0; if asked for, how diverse the list was; and a hash of who the users are.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semid_jax import disk
from semid_jax.eval.diversity import list_diversity
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.ranking import target_ranks
from semid_jax.report.records import RANKS, read_json
from semid_jax.types import InputError, ItemFeatures

SHOWN = 10  # items of a list whose diversity is kept


@dataclasses.dataclass(frozen=True)
class TestRanks:
    """Ranks of one run.

    Attributes:
      split: hash of the test's users and items; runs with the same one can be paired.
      ranks: uint8[U], users ascending; from 1, 0 where the item is not in the list.
      diversity: modality -> float16[U], of the first SHOWN items, see `list_diversity`.
    """

    split: str
    ranks: np.ndarray
    diversity: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, evaluation: Evaluation, features: ItemFeatures | None = None) -> TestRanks:
        """What an evaluation's lists of record say.

        Args:
          evaluation: of the run.
          features: what the lists' diversity is measured in; it is left out if not given.

        Raises:
          InputError: the lists are longer than a byte counts.
        """
        side, items = evaluation.side, evaluation.lists.items
        if items.shape[1] > 255:
            raise InputError(f"decode.k: {items.shape[1]}, ranks of record are kept up to 255")
        order = np.argsort(side.users)
        key = np.stack([side.users[order], side.targets[order]]).astype("<i8")
        split = hashlib.sha256(key.tobytes()).hexdigest()
        diversity = {}
        if features is not None:
            shown = items[order, :SHOWN]
            for name, x in features.x.items():
                of_lists = list_diversity(shown, x, features.present[name])
                diversity[name] = of_lists.astype(np.float16)
        return cls(split, target_ranks(items, side.targets)[order].astype(np.uint8), diversity)


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
    made: dict[str, object] = {"split": found.split, "ranks": _packed(found.ranks)}
    if found.diversity:
        made["diversity"] = {
            name: _packed(of_lists.astype("<f2")) for name, of_lists in found.diversity.items()
        }
    disk.write_json(ranks_path(record), made)


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
        diversity = {
            name: _unpacked(text, "<f2") for name, text in found.get("diversity", {}).items()
        }
        return TestRanks(found["split"], _unpacked(found["ranks"], "u1"), diversity)
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: torn; keep the run again with semid_jax.report.keep") from error


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.dtype(dtype))
