"""The stages of a run, in the order of the data; a stage whose artefact matches is skipped."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts, disk, provenance
from semid_jax.checkpoint import tree_hash
from semid_jax.data import builders
from semid_jax.data.config import DataConfig, check_name, read
from semid_jax.data.pipeline import PipelineConfig, TrainBatches
from semid_jax.data.sequences import log_proposal, popularity, train_items
from semid_jax.data.source import RawDataset, describe
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index, build_index, index_arrays, index_from_arrays
from semid_jax.decode.score import Tables
from semid_jax.eval.model import Queries, exact_ranks, mean_metrics, with_model
from semid_jax.eval.phases import trace_decoding
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.run import Evaluation, evaluate
from semid_jax.eval.store import KIND as EVALUATION
from semid_jax.eval.store import read_evaluation, write_evaluation
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.hdnag import Generator, GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.parallel import Parallel
from semid_jax.profiling import ProfileConfig
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.report.config import ReportConfig
from semid_jax.report.metrics import flatten
from semid_jax.report.run import report
from semid_jax.report.tables import Column, text_table
from semid_jax.train import tokenizer_arrays
from semid_jax.train.loop import Progress, train
from semid_jax.train.objective import Codes, hdnag_losses
from semid_jax.train.optimiser import TrainConfig, make_optimiser
from semid_jax.train.semantic_ids import Tokenizer, make_tokenizer, start_codes
from semid_jax.train.step import TrainState, make_step
from semid_jax.types import InputError, ItemFeatures

FREE_SECTIONS = ("profile", "report")  # may differ between two runs in one workdir


def section(config: ConfigDict, name: str, kind: Callable[..., Any]) -> Any:
    """A section of the configuration as its dataclass."""
    values = config[name].to_dict()
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def since(started: float) -> dict[str, float]:
    """What a stage notes in its manifest: the seconds since it started."""
    return {"seconds": time.perf_counter() - started}


def release() -> None:
    """Gives back what a finished stage has compiled and freed, or the peaks of stages add up."""
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def run(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Runs all stages.

    Args:
      config: resolved.
      workdir: where everything goes.
      argv: the command's arguments, for the record.
    """
    check_name(config.data.name)
    claim(config, workdir, argv)
    raw = data_stage(config, workdir)
    features = features_stage(config, workdir, raw)
    tokenizer = tokenize_stage(config, workdir, raw, features)
    release()
    generator, params, progress = train_stage(config, workdir, raw, tokenizer)
    release()
    index = index_stage(config, workdir, tokenizer, generator, params)
    evaluation = evaluate_stage(config, workdir, raw, features, tokenizer, generator, params, index)
    if config.profile.enabled:
        profile_stage(config, workdir, evaluation, generator, params, index)
    seconds = {
        "data": artifacts.read_extra(workdir / "data")["seconds"],
        "features": artifacts.read_extra(workdir / "features")["seconds"],
        "tokenize": artifacts.read_extra(workdir / "tokenizer")["seconds"],
        "train": progress.seconds,
        "index": artifacts.read_extra(workdir / "index" / "lists")["seconds"],
        "evaluate": artifacts.read_extra(workdir / "evaluation")["seconds"],
    }
    metrics = {
        "run.seed": config.seed,
        "run.parameters": sum(p.size for p in jax.tree.leaves(params)),
        "run.steps": progress.step,
        "run.best_step": progress.best_step,
        "run.seconds": sum(seconds.values()),
        **{f"run.stage_seconds.{name}": value for name, value in seconds.items()},
    }
    report(section(config, "report", ReportConfig), workdir, raw, tokenizer, evaluation, metrics)


def claim(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Writes config.json, or refuses a workdir that another configuration has made.

    What made the workdir (command, versions, revision, machine) stays as the first run wrote it.

    Raises:
      InputError: the workdir is another configuration's.
    """
    path = workdir / "config.json"
    plain = json.loads(json.dumps(config.to_dict()))
    launcher = os.environ.get("SEMID_LAUNCHER", "python -m semid_jax.launch")
    made = {
        "command": f"{launcher} {shlex.join(argv)}".strip(),
        "versions": provenance.versions(),
        "revision": provenance.revision(),
        "machine": provenance.machine(),
    }
    if path.exists():
        try:
            made = json.loads(path.read_text())
            theirs = flatten(made["config"])
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: torn; delete {workdir} and run again") from error
        ours = flatten(plain)
        differ = [
            name
            for name in sorted(theirs.keys() | ours.keys())
            if name.split(".")[0] not in FREE_SECTIONS and theirs.get(name) != ours.get(name)
        ]
        if differ:
            raise InputError(
                f"{workdir}: made by another config ({', '.join(differ[:4])} differ); "
                "name another --workdir, or delete this one"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    disk.write_json(path, {**made, "config": plain})


def data_stage(config: ConfigDict, workdir: Path) -> RawDataset:
    """Source to ArrayRecord, and back into memory."""
    directory = workdir / "data"
    settings = {"data": config.data.to_dict(), "synthetic": config.synthetic.to_dict()}
    if not artifacts.matches(directory, "data", {}, settings):
        started = time.perf_counter()
        synthetic = section(config, "synthetic", SyntheticConfig)
        raw = read(section(config, "data", DataConfig), synthetic)
        with disk.atomic_folder(directory) as folder:
            builders.write(raw, folder, config.data.name)
            artifacts.seal(folder, "data", {}, settings, since(started))
    raw = builders.read(directory)
    print(f"data: {describe(raw)}")
    if config.data.name == "synthetic":
        print("data: a synthetic world; it checks the tokenizer and says nothing about accuracy")
    return raw


def features_stage(config: ConfigDict, workdir: Path, raw: RawDataset) -> ItemFeatures:
    """Raw features to normalised ones, fitted on training items."""
    directory, inputs = workdir / "features", {"data": artifacts.content_hash(workdir / "data")}
    settings = config.features.to_dict()
    if not artifacts.matches(directory, "features", inputs, settings):
        started = time.perf_counter()
        made, fitted = fit_transform(
            raw.catalogue,
            train_items(raw.interactions),
            section(config, "features", FeaturesConfig),
        )
        arrays = {f"x/{k}": v for k, v in made.x.items()}
        arrays |= {f"present/{k}": v for k, v in made.present.items()}
        arrays |= {f"fitted/{k}": v for k, v in fitted.items()}
        artifacts.write(directory, "features", arrays, inputs, settings, since(started))
    arrays, _ = artifacts.read(directory, "features")
    x = {k.removeprefix("x/"): v for k, v in arrays.items() if k.startswith("x/")}
    features = ItemFeatures(x, {name: arrays[f"present/{name}"] for name in x})
    shown = (f"{n} {features.x[n].shape[1]}-d" for n in features.modalities)
    print(f"features: {', '.join(shown)}")
    return features


def tokenize_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> Tokenizer:
    """PMAT, archetypes and semantic IDs."""
    directory = workdir / "tokenizer"
    inputs = {"features": artifacts.content_hash(workdir / "features")}
    settings = {
        "tokenizer": config.tokenizer.to_dict(),
        "quantize": config.quantize.to_dict(),
        "max_length": config.train.max_length,
        "seed": config.seed,
    }
    pmat = section(config, "tokenizer", PmatConfig)
    if not artifacts.matches(directory, "tokenizer", inputs, settings):
        started = time.perf_counter()
        made = make_tokenizer(
            features,
            raw.interactions,
            pmat,
            section(config, "quantize", QuantizeConfig),
            config.train.max_length,
            config.seed,
        )
        arrays = tokenizer_arrays.to_arrays(made)
        artifacts.write(directory, "tokenizer", arrays, inputs, settings, since(started))
    arrays, _ = artifacts.read(directory, "tokenizer")
    tokenizer = tokenizer_arrays.from_arrays(arrays, features, pmat)
    print(
        f"tokenize: {len(tokenizer.coarse)} archetypes, {tokenizer.book.cells} coarse cells, "
        f"{tokenizer.book.digits} digits of {tokenizer.book.codewords} codewords"
    )
    return tokenizer


def train_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, tokenizer: Tokenizer
) -> tuple[Generator, Any, Progress]:
    """Trains the generator; a run that was killed goes on."""
    settings: TrainConfig = section(config, "train", TrainConfig)
    losses: LossConfig = section(config, "loss", LossConfig)
    parallel = Parallel(settings.parallel)
    parallel.check_batch(settings.batch_size, settings.group)
    book = tokenizer.book
    generator = Generator(
        section(config, "model", GeneratorConfig),
        book.cells,
        book.digits,
        book.codewords,
        settings.max_length,
    )
    pipeline = PipelineConfig(
        settings.batch_size,
        settings.group,
        settings.max_length,
        settings.buckets,
        settings.split_share,
        config.seed,
    )
    batches = TrainBatches(raw.interactions, pipeline, tokenizer.archetype)
    blank = jnp.zeros((1, 2), jnp.int32)
    digits = jnp.zeros((1, 2, book.digits), jnp.uint8)
    params = generator.init(jax.random.key(config.seed), blank, digits, blank > 0)
    params = start_codes(params, book, config.seed)
    optimiser = make_optimiser(settings, batches.steps_per_epoch)
    state = TrainState(jnp.int32(0), params, optimiser.init(params))
    counts = popularity(raw.interactions)
    codes = make_codes(tokenizer, counts)
    step = make_step(hdnag_losses(generator, losses, settings.group, config.seed), optimiser)

    rng = np.random.default_rng((config.seed, 3))
    users = np.arange(raw.interactions.n_users)
    if settings.evaluate_users and settings.evaluate_users < len(users):
        users = np.sort(rng.choice(users, settings.evaluate_users, replace=False))
    side, _, _ = read_side(tokenizer, raw.interactions, "validation", settings.max_length, users)
    empty = empty_index(tokenizer, config.model)

    def validate(params: Any) -> dict[str, float]:
        index = with_model(empty, generator, params)
        ranks, _ = exact_ranks(Queries(generator, params, index, side), index, side, None)
        return mean_metrics(ranks)

    best, progress = train(
        state,
        codes,
        step,
        batches,
        validate,
        settings,
        parallel,
        workdir,
    )
    print(
        f"train: {progress.step} steps of {batches.steps_per_epoch} an epoch, best validation "
        f"NDCG@10 {progress.best:.4f} at step {progress.best_step}"
    )
    return generator, best, progress


def make_codes(tokenizer: Tokenizer, counts: np.ndarray) -> Codes:
    """The catalogue as the training step reads it."""
    return Codes(
        jnp.asarray(tokenizer.coarse),
        jnp.asarray(tokenizer.fine),
        jnp.asarray(log_proposal(counts)),
    )


def empty_index(tokenizer: Tokenizer, model: ConfigDict) -> Index:
    """The index before a model has given it embeddings."""
    book = tokenizer.book
    tables = Tables(
        jnp.zeros((book.cells, model.width)),
        jnp.zeros((book.digits, book.codewords, model.digit_width)),
    )
    bias = np.zeros(tokenizer.coarse.shape, np.float32)
    return build_index(tokenizer.coarse, tokenizer.fine, bias, tables)


def index_stage(
    config: ConfigDict, workdir: Path, tokenizer: Tokenizer, generator: Generator, params: Any
) -> Index:
    """Inverted lists with the best model's embeddings."""
    directory = workdir / "index" / "lists"
    inputs = {
        "tokenizer": artifacts.content_hash(workdir / "tokenizer"),
        "model": tree_hash(params),
    }
    settings = config.model.to_dict()
    if not artifacts.matches(directory, "index", inputs, settings):
        started = time.perf_counter()
        made = with_model(empty_index(tokenizer, config.model), generator, params)
        arrays = {name: np.asarray(value) for name, value in index_arrays(made).items()}
        artifacts.write(directory, "index", arrays, inputs, settings, since(started))
    return index_from_arrays(artifacts.read(directory, "index")[0])


def evaluate_stage(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    features: ItemFeatures,
    tokenizer: Tokenizer,
    generator: Generator,
    params: Any,
    index: Index,
) -> Evaluation:
    """Validation and test, scored once."""
    directory = workdir / "evaluation"
    inputs = {
        "data": artifacts.content_hash(workdir / "data"),
        "features": artifacts.content_hash(workdir / "features"),
        "index": artifacts.content_hash(workdir / "index" / "lists"),
    }
    settings = {"decode": config.decode.to_dict(), "max_length": config.train.max_length}
    if not artifacts.matches(directory, EVALUATION, inputs, settings):
        started = time.perf_counter()
        made = evaluate(
            raw,
            features,
            tokenizer,
            generator,
            params,
            index,
            section(config, "decode", DecodeConfig),
            config.train.max_length,
            workdir / "index" / "scann",
        )
        write_evaluation(directory, made, inputs, settings, **since(started))
    return read_evaluation(directory)


def profile_stage(
    config: ConfigDict,
    workdir: Path,
    evaluation: Evaluation,
    generator: Generator,
    params: Any,
    index: Index,
) -> None:
    """The phase table of decode steps, and the trace that it was read from."""
    settings: ProfileConfig = section(config, "profile", ProfileConfig)
    decode: DecodeConfig = section(config, "decode", DecodeConfig)
    directory = workdir / "profile"
    table = trace_decoding(generator, params, index, evaluation.side, decode, settings, directory)
    disk.write_json(directory / "phases.json", table)
    columns = [Column("phase"), *(Column(n, digits=3) for n in ("mean_ms", "p50_ms", "p95_ms"))]
    print(f"\nprofile: decode steps of {settings.batch} users, read back from the trace")
    print(text_table(table, [*columns, Column("share", percent=True)]))
