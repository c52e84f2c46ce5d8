"""A decode step taken apart: trunk, coarse, gather, fine, top k, each a compiled phase to time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import best_of_blocks, probe, score_blocks
from semid_jax.eval.model import Model, ReadSide, user_query
from semid_jax.profiling import ProfileConfig, trace_phases


def trace_decoding(
    model: Model,
    index: Index,
    side: ReadSide,
    decode: DecodeConfig,
    settings: ProfileConfig,
    directory: Path,
) -> list[dict[str, Any]]:
    """Traces decode steps of one batch by the inverted index, phase by phase.

    Args:
      model: with its parameters.
      index: with the model's tables.
      side: users to serve; they repeat where there are fewer than the batch takes.
      decode: probes and k.
      settings: batch and steps.
      directory: receives the trace.

    Returns:
      The phase table, see `trace_phases`.
    """
    rows = np.resize(np.arange(len(side)), settings.batch)
    side = side.take(np.sort(rows))
    find = jax.jit(lambda query: probe(index, query, decode.probes))
    read = jax.jit(lambda probed: index.blocks.fine[probed.block])
    score = jax.jit(lambda fine, probed, codes: score_blocks(fine, probed, codes, index.blocks))
    best = jax.jit(lambda probed, scores: best_of_blocks(index, probed, scores, decode.k))
    batch = [
        jnp.asarray(a) for a in (side.coarse, side.fine, side.history, side.archetype, side.belief)
    ]
    return trace_phases(
        [
            ("trunk", lambda r: user_query(model, index.tables, *batch)),
            ("coarse", lambda r: find(r["trunk"])),
            ("gather", lambda r: read(r["coarse"])),
            ("fine", lambda r: score(r["trunk"].fine, r["coarse"], r["gather"])),
            ("top_k", lambda r: best(r["coarse"], r["fine"])),
        ],
        {},
        settings.steps,
        directory,
    )
