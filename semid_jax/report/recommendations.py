"""results/recommendations.parquet: the ranked lists under the user's own ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semid_jax.disk import whole_file

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
    ]
)


def write_recommendations(
    path: Path,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    chunk: int = 65536,
) -> None:
    """Writes one row per user and rank, in list order; the file appears whole or not at all.

    Args:
      path: the file.
      user_ids: str[U], original ids.
      item_ids: str[N + 1], original ids, row 0 padding.
      items: int32[U, k], ranked item numbers, 0 = no item (no row is written).
      scores: float32[U, k], as the search gave them.
      chunk: users at a time.

    Raises:
      InputError: the disk is full or not writable.
    """
    ranks = np.broadcast_to(np.arange(1, items.shape[1] + 1, dtype=np.int32), items.shape)
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for start in range(0, max(len(items), 1), chunk):
            part = slice(start, start + chunk)
            real = items[part] > 0
            owners = np.broadcast_to(user_ids[part, None], real.shape)
            columns = [
                pa.array(owners[real].astype(str), pa.string()),
                pa.array(ranks[part][real], pa.int32()),
                pa.array(item_ids[items[part][real]].astype(str), pa.string()),
                pa.array(scores[part][real].astype(np.float32), pa.float32()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
