"""Autoregressive rows of the decoding benchmark: GPT2 with the same trunk, one code at a time."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.benchmarks.machine import Rates, trunk_work
from semid_jax.benchmarks.timing import Timing, time_compiled, times
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import BeamConfig
from semid_jax.decode.trie import Trie, build_trie
from semid_jax.eval.beam import beam_lists, generate
from semid_jax.eval.dense import make_users
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.users import Users, mean_metrics
from semid_jax.models.gpt2 import Gpt2Config
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.recommenders import autoregressive
from semid_jax.recommenders.common import fit, make_batches, validation_users
from semid_jax.turns import turns_by_length
from semid_jax.types import ItemFeatures

TABLES = 2  # first levels of `ar_static` that are dense, as in STATIC
VALIDATED = 1000  # users that early stopping and the choice of the beam look at
KMEANS_CELLS = 256
DROPOUT = 0.2


def autoregressive_rows(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    features: ItemFeatures,
    users: np.ndarray,
    rates: Rates,
) -> list[dict[str, Any]]:
    """Trains one, chooses its beam on validation, times it with a plain trie and with STATIC's.

    Args:
      config: of `gpt2_config`.
      workdir: of the benchmark; the model's own lies in it.
      raw: data set.
      features: normalised features.
      users: int64[U], of the test split, for accuracy.
      rates: of the machine.
    """
    settings, length = config.benchmark, config.quantize.digits + 2
    folder = workdir / f"ar_{length}_codes"
    artifacts.borrow(folder, workdir, ("data", "expanded", "features"))
    generator = autoregressive.prepare(config, folder, raw, features)
    made = generator.made
    batches = make_batches(config, generator.reads)
    params, _ = fit(
        config, folder, batches, made.params, made.losses, made.constants, made.validate
    )
    codes, width = jnp.asarray(generator.table), config.train.max_length
    known = generator.model, params

    def accuracy(trie: Trie, side: Users, beam: int) -> float:
        k = min(config.decode.k, beam)
        lists = beam_lists(*known, trie, codes, side, BeamConfig(beam, k))
        return mean_metrics(target_ranks(lists.items, side.targets))["ndcg@10"]

    test = make_users(generator.reads, "test", width, users)
    some = validation_users(config, raw.interactions.n_users)
    validation = make_users(generator.reads, "validation", width, some)
    rows: list[dict[str, Any]] = []
    beam, ndcg = 0, 0.0
    for name, dense in (("ar_static", TABLES), ("ar_trie", 0)):
        started = time.perf_counter()
        trie = jax.block_until_ready(build_trie(generator.table, dense))
        built = time.perf_counter() - started
        if not rows:
            beams = {accuracy(trie, validation, beam): beam for beam in reversed(settings.beams)}
            beam = beams[max(beams)]
            ndcg = accuracy(trie, test, beam)
        k = min(config.decode.k, beam)
        for batch in settings.batches:
            history = test.history[np.linspace(0, len(test) - 1, batch, dtype=int)]
            timing, compiled = time_generator(known, trie, codes, history, beam, k, settings)
            sizes = generator.model.config
            # Of a history the last block leaves keys and values only; padding is none of it.
            read, written = int((history > 0).sum()) * length, batch * beam * (length - 1)
            work = trunk_work(read, sizes.width, sizes.layers - 1 + 1 / 6)
            work += trunk_work(written, sizes.width, sizes.layers)
            rows.append(
                {
                    "decoder": f"{name}, {length} codes, beam {beam}",
                    "batch": batch,
                    "ndcg@10": ndcg,
                    "build_s": built,
                    **compiled,
                    **times(timing, rates.floor_ms(work)),
                }
            )
    return rows


def gpt2_config(config: ConfigDict, length: int, epochs: int) -> ConfigDict:
    """GPT2 with the trunk's sizes on residual k-means of length - 1 levels.

    Args:
      config: of the benchmark.
      length: codes of an item, the last of which tells apart what the others do not.
      epochs: of its training.
    """
    settings, model = config.benchmark, config.model
    made = ConfigDict(config.to_dict())
    made.recommender = "gpt2"
    made.quantize = ConfigDict(
        dataclasses.asdict(
            QuantizeConfig(kind="residual", cells=KMEANS_CELLS, digits=length - 2, balance=1e9)
        )
    )
    sizes = Gpt2Config(model.width, model.layers, model.heads, DROPOUT)
    made.model = ConfigDict(dataclasses.asdict(sizes))
    widest = max(settings.beams)
    made.decode = ConfigDict(dataclasses.asdict(BeamConfig(widest, min(widest, config.decode.k))))
    made.train.epochs = epochs
    made.train.evaluate_users = VALIDATED
    return made


def time_generator(
    known: tuple[Any, Any],
    trie: Trie,
    codes: jax.Array,
    history: np.ndarray,
    beam: int,
    k: int,
    settings: Any,
) -> tuple[Timing, dict[str, float]]:
    """Times reading histories and generating, see `time_compiled`."""
    model, params = known

    def answer(params: Any, trie: Trie, codes: jax.Array, history: jax.Array) -> Any:
        def serve(history: jax.Array, width: int) -> Any:
            return generate(model, params, trie, codes, history[:, :width], beam, k, packed=True)

        lengths = jnp.sum(history > 0, axis=1)
        return turns_by_length(serve, history, lengths, history.shape[1])

    return time_compiled(answer, (params, trie, codes), [jnp.asarray(history)], settings.seconds)
