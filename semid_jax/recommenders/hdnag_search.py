"""HDNAG's stages between training and evaluation: what a search reads, and a server loads.

The model, its inverted lists, what single searches read beside, and how much they read.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.checkpoint import tree_hash
from semid_jax.data.sequences import popularity
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index, build_index, index_arrays, index_from_arrays
from semid_jax.decode.leaves import leaf_places
from semid_jax.decode.score import Tables
from semid_jax.decode.sketch import (
    KINDS,
    Leaves,
    Sketch,
    build_sketch,
    shape_of,
    sketch_arrays,
    sketch_from_arrays,
)
from semid_jax.eval.model import Model, ReadSide, dense_items, hdnag_queries, with_model
from semid_jax.eval.probing import (
    choose_probes,
    item_places,
    probes_for_recall,
    search_ndcg,
)
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.searching import Queries, Search, rescoring, run_search, some_vectors
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.recommenders.common import section, since
from semid_jax.train import generator_arrays
from semid_jax.train.semantic_ids import Tokenizer

SOME = 4096  # users on validation that a sketch is fitted to, and by whom leaves are chosen


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained run with its lists, for which searches are made ready.

    Attributes:
      raw: data set.
      tokenizer: of the run.
      model: best on validation.
      index: with the model's tables.
    """

    raw: RawDataset
    tokenizer: Tokenizer
    model: Model
    index: Index


def model_stage(workdir: Path, model: Model) -> None:
    """The best model, calibrated, as an artefact of its own: a server needs no checkpoint."""
    directory = workdir / "model"
    inputs = {
        "tokenizer": artifacts.content_hash(workdir / "tokenizer"),
        "params": tree_hash(model.params),
    }
    settings = generator_arrays.settings_of(model.generator)
    if not artifacts.matches(directory, generator_arrays.KIND, inputs, settings):
        arrays = generator_arrays.to_arrays(model.params)
        artifacts.write(directory, generator_arrays.KIND, arrays, inputs, settings)


def log_popularity(counts: np.ndarray) -> jax.Array:
    """pop, float32[N + 1]: log of how often items are chosen, int64[N + 1], less its mean."""
    found = np.log(counts + 1.0)
    return jnp.asarray(found - found[1:].mean(), jnp.float32)


def empty_index(tokenizer: Tokenizer, sizes: GeneratorConfig) -> Index:
    """The index before a model has given it tables."""
    coarse, words = tokenizer.centroids.coarse, tokenizer.centroids.fine
    tables = Tables(
        jnp.zeros((len(coarse), sizes.width + coarse.shape[-1])),
        jnp.zeros((*words.shape[:2], sizes.digit_width + words.shape[-1])),
    )
    bias = np.zeros(tokenizer.coarse.shape, np.float32)
    return build_index(tokenizer.coarse, tokenizer.fine, bias, tables)


def index_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, tokenizer: Tokenizer, model: Model
) -> Index:
    """Inverted lists with the best model's embeddings."""
    directory = workdir / "index" / "lists"
    inputs = {
        "tokenizer": artifacts.content_hash(workdir / "tokenizer"),
        "model": tree_hash(model.params),
    }
    settings = config.model.to_dict()
    if not artifacts.matches(directory, "index", inputs, settings):
        started = time.perf_counter()
        empty = empty_index(tokenizer, model.generator.config)
        made = with_model(empty, model, log_popularity(popularity(raw.interactions)))
        arrays = {name: np.asarray(value) for name, value in index_arrays(made).items()}
        artifacts.write(directory, "index", arrays, inputs, settings, since(started))
    return index_from_arrays(artifacts.read(directory, "index")[0])


def probes_stage(config: ConfigDict, workdir: Path, trained: Trained) -> DecodeConfig:
    """The settings of the search, P chosen on validation if none is given."""
    index = trained.index
    decode: DecodeConfig = section(config, "decode", DecodeConfig)
    if decode.probes:
        return decode
    directory = workdir / "probes"
    inputs = {"index": artifacts.content_hash(workdir / "index" / "lists")}
    if not artifacts.matches(directory, "probes", inputs, config.decode.to_dict()):
        started = time.perf_counter()
        side, queries = _validation(config, trained)
        dense = dense_items(trained.model)
        ndcg = functools.partial(search_ndcg, queries, index, side, dense, decode)
        chosen, tried = choose_probes(index.n_cells, decode.loss, ndcg)
        losses = {str(probes): loss._asdict() for probes, loss in tried.items()}
        extra = {"probes": chosen, "losses": losses, **since(started)}
        artifacts.write(directory, "probes", {}, inputs, config.decode.to_dict(), extra)
    notes = artifacts.read_extra(directory)
    probes, loss = notes["probes"], notes["losses"][str(notes["probes"])]
    print(
        f"probes: {probes} of {index.n_cells} cells lose {100 * loss['mean']:.2f} % of validation "
        f"NDCG@10, surely at most {100 * loss['upper']:.2f} % (allowed {100 * decode.loss:g} %)"
    )
    return dataclasses.replace(decode, probes=probes)


def sketch_stage(config: ConfigDict, workdir: Path, trained: Trained) -> dict[str, Sketch]:
    """What `leaves` and `pruned` read of the index, by name, where they are among the methods."""
    made: dict[str, Sketch] = {}
    index = trained.index
    for name in KINDS:
        if name not in config.decode.methods:
            continue
        shape = shape_of(name, config.decode.leaf_items)
        directory = workdir / "index" / name
        inputs = {"index": artifacts.content_hash(workdir / "index" / "lists")}
        settings = {**shape._asdict(), "users": SOME}
        if not artifacts.matches(directory, "sketch", inputs, settings):
            started = time.perf_counter()
            vectors = some_vectors(_some_queries(config, trained))
            arrays = sketch_arrays(build_sketch(name, index, vectors, shape))
            artifacts.write(directory, "sketch", arrays, inputs, settings, since(started))
        made[name] = sketch_from_arrays(name, artifacts.read(directory, "sketch")[0])
    return made


def leaves_stage(
    config: ConfigDict,
    workdir: Path,
    trained: Trained,
    decode: DecodeConfig,
    sketch: Sketch | None,
) -> DecodeConfig:
    """The settings of the search, how many leaves are read chosen on validation if not given."""
    if decode.leaves or not isinstance(sketch, Leaves):
        return decode
    directory = workdir / "leaves"
    inputs = {"sketch": artifacts.content_hash(workdir / "index" / "leaves")}
    if not artifacts.matches(directory, "leaves", inputs, config.decode.to_dict()):
        started = time.perf_counter()
        queries, dense = _some_queries(config, trained), dense_items(trained.model)
        wide = decode.k if dense is None else decode.rescored
        exact: Search = functools.partial(retrieve_exact, trained.index, k=wide, chunk=decode.chunk)
        if dense is not None:
            exact = rescoring(exact, dense, decode.k)
        best = run_search(queries, exact, "search exact").items
        places = item_places(queries, best, functools.partial(leaf_places, trained.index, sketch))
        chosen, missed = probes_for_recall(places, len(sketch.blocks.item), decode.recall)
        extra = {"leaves": chosen, "missed": missed._asdict(), **since(started)}
        artifacts.write(directory, "leaves", {}, inputs, config.decode.to_dict(), extra)
    notes = artifacts.read_extra(directory)
    held = 100 - 100 * notes["missed"]["mean"]
    print(
        f"leaves: {notes['leaves']} of {len(sketch.blocks.item)} leaves hold {held:.1f} % of the "
        f"exact lists on validation (asked {100 * decode.recall:g} %)"
    )
    return dataclasses.replace(decode, leaves=notes["leaves"])


def _some_queries(config: ConfigDict, trained: Trained) -> Queries:
    """Queries of some users on validation, from all over."""
    users = np.arange(trained.raw.interactions.n_users)
    return _validation(config, trained, users[:: -(-len(users) // SOME)])[1]


def _validation(
    config: ConfigDict, trained: Trained, users: np.ndarray | None = None
) -> tuple[ReadSide, Queries]:
    """Users on validation, all if not given, and their queries."""
    at = trained.raw.interactions, "validation", config.train.max_length, users
    side, _, _ = read_side(trained.tokenizer, *at)
    return side, hdnag_queries(trained.model, trained.index, side)
