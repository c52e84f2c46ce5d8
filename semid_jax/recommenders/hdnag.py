"""HDNAG's stages: tokenize, train, calibrate, `hdnag_search`'s, evaluate, profile on request."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts, disk
from semid_jax.checkpoint import tree_hash
from semid_jax.data.sequences import popularity, train_items
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index
from semid_jax.decode.rescoring import DenseItems
from semid_jax.decode.scann_search import available
from semid_jax.decode.sketch import Sketch
from semid_jax.eval.calibration import CHOICES, mean_square, metrics_by_choice, weigh_likeness
from semid_jax.eval.evaluation import Evaluation, IdEvaluation
from semid_jax.eval.hdnag import evaluate, validation_ranks
from semid_jax.eval.model import (
    Model,
    ReadSide,
    dense_items,
    hdnag_queries,
    queries_of,
    side_vectors,
    with_model,
)
from semid_jax.eval.phases import trace_decoding
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.searching import Queries
from semid_jax.eval.users import mean_metrics
from semid_jax.models.hdnag import Generator, GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.profiling import ProfileConfig
from semid_jax.quantize.config import QuantizeConfig, check
from semid_jax.recommenders.common import (
    Outcome,
    evaluate_once,
    fit,
    hashes,
    make_batches,
    release,
    section,
    since,
    validation_users,
)
from semid_jax.recommenders.fused_items import fuse_settings, fused_items
from semid_jax.recommenders.hdnag_search import (
    Trained,
    empty_index,
    index_stage,
    leaves_stage,
    log_popularity,
    model_stage,
    probes_stage,
    sketch_stage,
)
from semid_jax.report.tables import Column, text_table
from semid_jax.tokenizers.fused import to_width
from semid_jax.train import generator_arrays, tokenizer_arrays
from semid_jax.train.loop import Progress
from semid_jax.train.objective import Codes, hdnag_losses
from semid_jax.train.optimiser import TrainConfig
from semid_jax.train.proposal import make_proposal
from semid_jax.train.semantic_ids import Tokenizer, make_tokenizer, of_vectors, start_codes
from semid_jax.types import InputError, ItemFeatures

PHASE_COLUMNS = (
    Column("phase"),
    *(Column(name, digits=3) for name in ("mean_ms", "p50_ms", "p95_ms")),
    Column("share", percent=True),
)


def run(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> Outcome | None:
    """Runs them; None before the test is scored if the configuration says `validate_only`.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.
    """
    sizes = section(config, "model", GeneratorConfig)
    tokenizer = tokenize_stage(config, workdir, raw, features)
    release()
    model, progress = train_stage(config, workdir, raw, tokenizer, sizes)
    if sizes.normalised:  # not S1, which the searches compute
        return None
    release()
    model_stage(workdir, model)
    index = index_stage(config, workdir, raw, tokenizer, model)
    trained = Trained(raw, tokenizer, model, index)
    decode = probes_stage(config, workdir, trained)
    if config.validate_only:
        return None
    sketches = sketch_stage(config, workdir, trained)
    decode = leaves_stage(config, workdir, trained, decode, sketches.get("leaves"))
    evaluation = evaluate_stage(
        config, workdir, raw, features, decode, tokenizer, model, index, sketches
    )
    if config.profile.enabled and isinstance(evaluation.side, ReadSide):
        profile_stage(config, workdir, evaluation.side, decode, model, index)
    calibration = {}
    if model.generator.has_dense:
        calibration["calibrate"] = artifacts.read_extra(workdir / "calibration")["seconds"]
    chosen = {
        name: artifacts.read_extra(workdir / name)["seconds"]
        for name in ("probes", "leaves")
        if (workdir / name).exists()
    }
    seconds = {
        "tokenize": artifacts.read_extra(workdir / "tokenizer")["seconds"],
        "train": progress.seconds,
        **calibration,
        "index": artifacts.read_extra(workdir / "index" / "lists")["seconds"],
        **chosen,
        "evaluate": artifacts.read_extra(workdir / "evaluation")["seconds"],
    }
    return Outcome(evaluation, model.params, progress, seconds, tokenizer)


def check_settings(config: ConfigDict) -> None:
    """Refuses a model or a codebook that cannot be.

    Raises:
      InputError: names the field and the remedy.
    """
    decode: DecodeConfig = section(config, "decode", DecodeConfig)
    if decode.methods[0] == "scann" and not available():
        raise InputError("decode.methods: scann is not installed here; name another one first")
    sizes: GeneratorConfig = section(config, "model", GeneratorConfig)
    if sizes.normalised and not config.validate_only:
        raise InputError("model.normalised: the searches compute S1; set validate_only=True")
    if sizes.belief and fuse_settings(config):
        raise InputError("model.belief: only PMAT believes something; set model.belief=False")
    check_tokenizer(config)


def check_tokenizer(config: ConfigDict) -> None:
    """Refuses a codebook that cannot be.

    Raises:
      InputError: names the field and the remedy.
    """
    pmat = section(config, "tokenizer", PmatConfig)
    check(section(config, "quantize", QuantizeConfig), pmat.points_width)


def tokenize_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> Tokenizer:
    """PMAT, archetypes and semantic IDs."""
    directory = workdir / "tokenizer"
    inputs = hashes(workdir, "data", "expanded", "features")
    pmat = section(config, "tokenizer", PmatConfig)
    if fuse_settings(config):
        pmat = of_vectors(pmat)
    settings = {
        "tokenizer": dataclasses.asdict(pmat),
        "quantize": config.quantize.to_dict(),
        "max_length": config.train.max_length,
        "seed": config.seed,
        "fuse": fuse_settings(config),
    }
    if not artifacts.matches(directory, "tokenizer", inputs, settings):
        started = time.perf_counter()
        fused = fused_items(config, features, raw.interactions)
        points = None
        if fused is not None:
            points = to_width(fused.points, train_items(raw.interactions), pmat.width)
        made = make_tokenizer(
            features,
            raw.interactions,
            pmat,
            section(config, "quantize", QuantizeConfig),
            config.train.max_length,
            config.seed,
            points,
        )
        arrays = tokenizer_arrays.to_arrays(made)
        artifacts.write(directory, "tokenizer", arrays, inputs, settings, since(started))
    tokenizer = tokenizer_arrays.load(directory)
    print(
        f"tokenize: {len(tokenizer.coarse)} archetypes, {tokenizer.book.cells} coarse cells, "
        f"{tokenizer.fine.shape[-1]} digits of {tokenizer.book.codewords} codewords"
    )
    return tokenizer


def train_stage(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    tokenizer: Tokenizer,
    sizes: GeneratorConfig,
) -> tuple[Model, Progress]:
    """Trains the generator; a run that was killed goes on."""
    settings: TrainConfig = section(config, "train", TrainConfig)
    losses: LossConfig = section(config, "loss", LossConfig)
    book = tokenizer.book
    generator = Generator(
        sizes,
        book.cells,
        tokenizer.fine.shape[-1],
        book.codewords,
        settings.max_length,
        raw.interactions.n_items,
        tokenizer.points.shape[-1],
        len(tokenizer.module.modalities),
    )
    readings = tokenizer.readings
    belief = readings.belief if sizes.belief else None
    batches = make_batches(config, raw.interactions, readings.archetype, belief)
    blank = generator_arrays.initialise(generator, tokenizer.centroids, config.seed)
    params = start_codes(blank, tokenizer, config.seed)
    codes = make_codes(tokenizer, popularity(raw.interactions))
    start = Model(params, tokenizer.views, tokenizer.centroids, generator)
    users = validation_users(config, raw.interactions.n_users)
    side, _, _ = read_side(tokenizer, raw.interactions, "validation", settings.max_length, users)
    empty = empty_index(tokenizer, sizes)
    decode: DecodeConfig = section(config, "decode", DecodeConfig)

    def validate(params: Any) -> dict[str, float]:
        model = dataclasses.replace(start, params=params)
        index = with_model(empty, model, codes.popularity)
        queries = hdnag_queries(model, index, side, shows_bar=False)
        dense = dense_items(model)
        ranks = validation_ranks(queries, index, side, dense, decode)
        found = mean_metrics(ranks["validation"])
        if dense is not None:
            found["s1_ndcg@10"] = mean_metrics(ranks["validation_s1"])["ndcg@10"]
        return found

    unit = 1.0 / mean_square(tokenizer.points)

    def weigh(model: Model, dense: DenseItems) -> list[dict[str, float]]:
        index = with_model(empty, model, codes.popularity)
        # Everyone: by 2,000 of 6,040 users a k_z was chosen that the others lose by.
        side, _, _ = read_side(tokenizer, raw.interactions, "validation", settings.max_length)
        vectors = side_vectors(model, side, shows_bar=False)

        def weighed(factor: float, scale: float) -> Queries:
            params = weigh_likeness(model.params, factor, scale * unit)
            return queries_of(dataclasses.replace(model, params=params), index, side, vectors)

        queries = weighed(0, 0), weighed(1, 0), weighed(0, 1)
        search = functools.partial(retrieve_exact, index, k=decode.rescored, chunk=decode.chunk)
        return metrics_by_choice(queries, search, dense, side, decode.k)

    objective = hdnag_losses(generator, losses, settings.group)
    params, progress = fit(config, workdir, batches, params, objective, codes, validate)
    best = dataclasses.replace(start, params=params)
    dense = dense_items(best)
    if dense is not None:
        params = calibrate_stage(config, workdir, params, unit, lambda: weigh(best, dense))
        best = dataclasses.replace(best, params=params)
    return best, progress


def calibrate_stage(
    config: ConfigDict,
    workdir: Path,
    params: Any,
    unit: float,
    weigh: Callable[[], list[dict[str, float]]],
) -> Any:
    """The best parameters, likeness weighed as validation says, the less of equals.

    Args:
      config: resolved.
      workdir: where everything goes.
      params: as trained.
      unit: k_z of scale one.
      weigh: metrics of validation by CHOICES.
    """
    directory = workdir / "calibration"
    inputs = {"model": tree_hash(params)}
    choices = {"choices": [list(choice) for choice in CHOICES], "unit": unit}
    settings = {"decode": config.decode.to_dict(), **choices, "users": "all"}
    if not artifacts.matches(directory, "calibration", inputs, settings):
        started = time.perf_counter()
        found = weigh()
        best = max(range(len(CHOICES)), key=lambda place: found[place]["ndcg@10"])
        factor, scale = CHOICES[best]
        chosen = {"factor": factor, "scale": scale, "validation": found[best], "plain": found[0]}
        extra = {**chosen, **since(started)}
        artifacts.write(directory, "calibration", {}, inputs, settings, extra)
    notes = artifacts.read_extra(directory)
    before, after = notes["plain"]["ndcg@10"], notes["validation"]["ndcg@10"]
    factor, scale = notes["factor"], notes["scale"]
    print(
        f"calibrate: likeness in the modalities x {factor:g}, in z + {scale:g}, validation NDCG@10 "
        f"{before:.4f} -> {after:.4f}"
    )
    return weigh_likeness(params, factor, scale * unit)


def make_codes(tokenizer: Tokenizer, counts: np.ndarray) -> Codes:
    """The catalogue as the training step reads it.

    Args:
      tokenizer: with its IDs.
      counts: int64[N + 1], how often items are chosen.
    """
    return Codes(
        jnp.asarray(tokenizer.coarse),
        jnp.asarray(tokenizer.fine),
        make_proposal(counts),
        log_popularity(counts),
        tokenizer.views,
        tokenizer.centroids,
    )


def evaluate_stage(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    features: ItemFeatures,
    decode: DecodeConfig,
    tokenizer: Tokenizer,
    model: Model,
    index: Index,
    sketches: Mapping[str, Sketch],
) -> Evaluation:
    """Validation and test, scored once."""
    inputs = {"tokenizer": artifacts.content_hash(workdir / "tokenizer")}
    settings = {"decode": dataclasses.asdict(decode), "max_length": config.train.max_length}

    def score() -> IdEvaluation:
        return evaluate(
            raw,
            features,
            tokenizer,
            model,
            index,
            sketches,
            decode,
            config.train.max_length,
            workdir / "index" / "scann",
        )

    return evaluate_once(workdir, model.params, settings, score, inputs)


def profile_stage(
    config: ConfigDict,
    workdir: Path,
    side: ReadSide,
    decode: DecodeConfig,
    model: Model,
    index: Index,
) -> None:
    """The phase table of decode steps, and the trace that it was read from."""
    settings: ProfileConfig = section(config, "profile", ProfileConfig)
    directory = workdir / "profile"
    asked = model, index, side, dense_items(model)
    table = trace_decoding(*asked, decode, settings, directory)
    disk.write_json(directory / "phases.json", table)
    print(f"\nprofile: decode steps of {settings.batch} users, read back from the trace")
    print(text_table(table, PHASE_COLUMNS))
