"""A decode step taken apart: trunk, coarse, gather, fine, top k, each a compiled phase to time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import gather_lists
from semid_jax.decode.score import score_gathered
from semid_jax.decode.topk import top_k_ties
from semid_jax.eval.model import ReadSide, user_query
from semid_jax.models.codes import Centroids
from semid_jax.models.fusion import ItemViews
from semid_jax.models.hdnag import Generator
from semid_jax.profiling import ProfileConfig, trace_phases


def trace_decoding(
    generator: Generator,
    params: Any,
    known: tuple[ItemViews, Centroids],
    index: Index,
    side: ReadSide,
    decode: DecodeConfig,
    settings: ProfileConfig,
    directory: Path,
) -> list[dict[str, Any]]:
    """Traces decode steps of one batch by the inverted index, phase by phase.

    Args:
      generator: module.
      params: its parameters.
      known: views of the catalogue and centroids of its codebook.
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
    probes = min(decode.probes, index.n_cells)
    coarse = jax.jit(lambda q: jax.lax.top_k(q.coarse, probes)[1])

    @jax.jit
    def gather(query: Any, cells: jax.Array) -> Any:
        position, valid = gather_lists(index, query.archetype, cells)
        entry = index.lists[query.archetype[:, None], position]
        codes = (index.entry_coarse[entry], index.entry_fine[entry], index.entry_bias[entry])
        return codes, valid, index.entry_item[entry]

    @jax.jit
    def fine(query: Any, gathered: Any) -> jax.Array:
        codes, valid, _ = gathered
        return jnp.where(valid, score_gathered(query, *codes), -jnp.inf)

    best = jax.jit(lambda scores, items: top_k_ties(scores, items, decode.k))
    batch = [
        jnp.asarray(a) for a in (side.coarse, side.fine, side.history, side.archetype, side.belief)
    ]
    return trace_phases(
        [
            ("trunk", lambda r: user_query(generator, params, *known, index.tables, *batch)),
            ("coarse", lambda r: coarse(r["trunk"])),
            ("gather", lambda r: gather(r["trunk"], r["coarse"])),
            ("fine", lambda r: fine(r["trunk"], r["gather"])),
            ("top_k", lambda r: best(r["fine"], r["gather"][2])),
        ],
        {},
        settings.steps,
        directory,
    )
