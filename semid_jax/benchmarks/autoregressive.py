"""Autoregressive rows of the decoding benchmark: GPT2 with the same trunk, one code at a time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.benchmarks.machine import Rates, trunk_work
from semid_jax.benchmarks.programs import Program
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import BeamConfig
from semid_jax.decode.trie import Trie, build_trie
from semid_jax.eval.beam import beam_lists, generate
from semid_jax.eval.dense import make_users
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.users import Users, mean_metrics
from semid_jax.models.gpt2 import Gpt2, Gpt2Config
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.recommenders import autoregressive
from semid_jax.recommenders.common import fit, make_batches, release, validation_users
from semid_jax.turns import turns_by_length
from semid_jax.types import ItemFeatures

TABLES = 2  # first levels of `ar_static` that are dense, as in STATIC
VALIDATED = 1000  # users that early stopping and the choice of the beam look at
KMEANS_CELLS = 256
DROPOUT = 0.2


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """A trained GPT2 and how it is searched.

    Attributes:
      model: with params.
      params: best on validation.
      codes: int32[N + 1, L], of all items.
      tries: name of a row -> the catalogue's trie, plain or with STATIC's tables, and the seconds
        that it took to build.
      beam: chosen on validation.
      k: items returned.
      ndcg: NDCG@10 on the test split.
      users: of the test split.
    """

    model: Gpt2
    params: Any
    codes: jax.Array
    tries: Mapping[str, tuple[Trie, float]]
    beam: int
    k: int
    ndcg: float
    users: Users


def train_beam_searches(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures, users: np.ndarray
) -> list[BeamSearch]:
    """One for each of benchmark.lengths.

    Args:
      config: of the benchmark.
      workdir: of the benchmark.
      raw: data set.
      features: normalised features.
      users: int64[U], of the test split, for accuracy.
    """
    settings, own, made = config.benchmark, config.quantize.digits + 1, []
    for length, epochs in zip(settings.lengths, settings.epochs, strict=False):
        release()
        gpt2 = gpt2_config(config, length or own, epochs)
        made.append(train_beam_search(gpt2, workdir, raw, features, users))
    return made


def train_beam_search(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures, users: np.ndarray
) -> BeamSearch:
    """Trains a GPT2 and chooses its beam on validation.

    Args:
      config: of `gpt2_config`.
      workdir: of the benchmark; the model's own lies in it.
      raw: data set.
      features: normalised features.
      users: int64[U], of the test split, for accuracy.
    """
    folder = workdir / f"ar_{config.quantize.digits + 2}_codes"
    artifacts.borrow(folder, workdir, ("data", "expanded", "features"))
    generator = autoregressive.prepare(config, folder, raw, features)
    made = generator.made
    batches = make_batches(config, generator.reads)
    params, _ = fit(
        config, folder, batches, made.params, made.losses, made.constants, made.validate
    )
    codes, width = jnp.asarray(generator.table), config.train.max_length
    tries = {}
    for name, dense in (("ar_static", TABLES), ("ar_trie", 0)):
        started = time.perf_counter()
        trie = jax.block_until_ready(build_trie(generator.table, dense))
        tries[name] = trie, time.perf_counter() - started

    def accuracy(side: Users, beam: int) -> float:
        sizes = BeamConfig(beam, min(config.decode.k, beam))
        lists = beam_lists(generator.model, params, tries["ar_static"][0], codes, side, sizes)
        return mean_metrics(target_ranks(lists.items, side.targets))["ndcg@10"]

    some = validation_users(config, raw.interactions.n_users)
    validation = make_users(generator.reads, "validation", width, some)
    beams = {accuracy(validation, beam): beam for beam in reversed(config.benchmark.beams)}
    beam = beams[max(beams)]
    test = make_users(generator.reads, "test", width, users)
    k, ndcg = min(config.decode.k, beam), accuracy(test, beam)
    return BeamSearch(generator.model, params, codes, tries, beam, k, ndcg, test)


def beam_programs(search: BeamSearch, batch: int, rates: Rates) -> list[Program]:
    """From histories to lists, by a plain trie and by STATIC's.

    Args:
      search: of `train_beam_search`.
      batch: users of a call.
      rates: of the machine.
    """
    users, sizes = search.users, search.model.config
    history = users.history[np.linspace(0, len(users) - 1, batch, dtype=int)]
    length = search.codes.shape[1]
    # Of a history the last block leaves keys and values only; padding is none of it.
    read, written = int((history > 0).sum()) * length, batch * search.beam * (length - 1)
    work = trunk_work(read, sizes.width, sizes.layers - 1 + 1 / 6)
    floor = rates.floor_ms(work + trunk_work(written, sizes.width, sizes.layers))
    answer = functools.partial(_answer, search.model, search.beam, search.k)
    made = []
    for name, (trie, built) in search.tries.items():
        title = f"{name}, {length} codes, beam {search.beam}"
        arrays, about = (search.params, trie, search.codes), {"ndcg@10": search.ndcg}
        about["build_s"] = built
        made.append(Program(title, answer, arrays, [jnp.asarray(history)], floor, about=about))
    return made


def _answer(
    model: Gpt2,
    beam: int,
    k: int,
    params: Any,
    trie: Trie,
    codes: jax.Array,
    history: jax.Array,
) -> Any:
    """Reads histories int32[B, T] and generates."""

    def serve(history: jax.Array, width: int) -> Any:
        return generate(model, params, trie, codes, history[:, :width], beam, k, packed=True)

    lengths = jnp.sum(history > 0, axis=1)
    return turns_by_length(serve, history, lengths, history.shape[1])


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
