"""A decode step taken apart: trunk, coarse, gather, fine, top k, S2, each a compiled phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index
from semid_jax.decode.inverted import best_of_blocks, probe, retrieve_inverted, score_blocks
from semid_jax.decode.rescoring import DenseItems, rescore
from semid_jax.decode.retrieved import Retrieved
from semid_jax.eval.model import Model, ReadSide, user_query
from semid_jax.profiling import Phase, ProfileConfig, trace_phases


def trace_decoding(
    model: Model,
    index: Index,
    side: ReadSide,
    dense: DenseItems | None,
    decode: DecodeConfig,
    settings: ProfileConfig,
    directory: Path,
) -> list[dict[str, Any]]:
    """Traces decode steps of one batch by the inverted index, phase by phase.

    Args:
      model: with its parameters.
      index: with the model's tables.
      side: users to serve; they repeat where there are fewer than the batch takes.
      dense: the catalogue's side of the dense term; None where S1 is all there is.
      decode: probes, k and the items that S2 ranks again.
      settings: batch and steps.
      directory: receives the trace.

    Returns:
      The phase table, see `trace_phases`.
    """
    rows = np.resize(np.arange(len(side)), settings.batch)
    side = side.take(np.sort(rows))
    ask = jax.jit(user_query)
    find = jax.jit(lambda query: probe(index, query, decode.probes))
    read = jax.jit(lambda probed: index.blocks.fine[probed.block])
    score = jax.jit(lambda fine, probed, codes: score_blocks(fine, probed, codes, index.blocks))
    kept = decode.k if dense is None else decode.rescored
    best = jax.jit(lambda probed, scores: best_of_blocks(index, probed, scores, kept))
    fields = side.coarse, side.fine, side.history, side.archetype, side.belief, side.alpha
    batch = [jnp.asarray(a) for a in fields]
    phases: list[Phase] = [
        ("trunk", lambda r: ask(model, index.tables, *batch)),
        ("coarse", lambda r: find(r["trunk"])),
        ("gather", lambda r: read(r["coarse"])),
        ("fine", lambda r: score(r["trunk"].fine, r["coarse"], r["gather"])),
        ("top_k", lambda r: best(r["coarse"], r["fine"])),
    ]
    if dense is not None:
        uncounted = jnp.zeros(settings.batch)

        def again(results: dict[str, Any]) -> Retrieved:
            items, scores = results["top_k"]
            found = Retrieved(items, scores, uncounted)
            return rescore(dense, results["trunk"].dense, found, decode.k)

        phases.append(("s2", again))

    @jax.jit
    def answer(model: Model, index: Index, dense: DenseItems | None, batch: Any) -> Retrieved:
        query = user_query(model, index.tables, *batch)
        found = retrieve_inverted(index, query, decode.probes, kept)
        return found if dense is None else rescore(dense, query.dense, found, decode.k)

    def whole() -> Retrieved:
        return answer(model, index, dense, batch)

    return trace_phases(phases, whole, settings.steps, directory)
