"""The stages of a run, in the order of the data; a stage whose artefact matches is skipped."""

from __future__ import annotations

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

from semid_jax import artifacts
from semid_jax.data import builders
from semid_jax.data.config import DataConfig, check_name, read
from semid_jax.data.pipeline import PipelineConfig, TrainBatches
from semid_jax.data.sequences import log_proposal, popularity, train_items
from semid_jax.data.source import RawDataset, describe
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index, build_index, index_arrays, index_from_arrays
from semid_jax.decode.inverted import gather_lists
from semid_jax.decode.score import Tables, score_gathered
from semid_jax.decode.topk import top_k_ties
from semid_jax.eval.model import Queries, exact_ranks, mean_metrics, user_query, with_model
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.run import Evaluation, evaluate
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.hdnag import Generator, GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.parallel import Parallel
from semid_jax.profiling import ProfileConfig, trace_phases
from semid_jax.quantize.cell_names import cell_names
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.report.figures import draw_alpha, draw_bars, draw_list_sizes, draw_training
from semid_jax.report.metrics import flatten, nest, read_history, write_metrics
from semid_jax.report.page import (
    ACCURACY,
    RETRIEVAL_COLUMNS,
    build_page,
    comparison_rows,
    retrieval_rows,
)
from semid_jax.report.recommendations import write_recommendations
from semid_jax.report.stories import tell_users
from semid_jax.report.tables import Column, metric_columns, shown_columns, text_table
from semid_jax.report.users import write_users
from semid_jax.train import tokenizer_arrays
from semid_jax.train.loop import train
from semid_jax.train.optimiser import TrainConfig, make_optimiser
from semid_jax.train.semantic_ids import Tokenizer, make_tokenizer, start_codes
from semid_jax.train.step import Codes, TrainState, make_step
from semid_jax.types import InputError, ItemFeatures

FREE_SECTIONS = ("profile", "report")  # may differ between two runs in one workdir


def section(config: ConfigDict, name: str, kind: Callable[..., Any]) -> Any:
    """A section of the configuration as its dataclass."""
    values = config[name].to_dict()
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def run(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Runs all stages.

    Args:
      config: resolved.
      workdir: where everything goes.
      argv: the command's arguments, for the record.
    """
    started = time.perf_counter()
    check_name(config.data.name)
    claim(config, workdir, argv)
    raw = data_stage(config, workdir)
    features = features_stage(config, workdir, raw)
    tokenizer = tokenize_stage(config, workdir, raw, features)
    generator, params = train_stage(config, workdir, raw, tokenizer)
    index = index_stage(config, workdir, tokenizer, generator, params)
    evaluation = evaluate(
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
    evaluation.metrics["run.seconds"] = time.perf_counter() - started
    evaluation.metrics["run.seed"] = config.seed
    if config.profile.enabled:
        profile_stage(config, workdir, evaluation, generator, params, index)
    report_stage(config, workdir, raw, tokenizer, evaluation)


def claim(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Writes config.json, or refuses a workdir that another configuration has made.

    Raises:
      InputError: the workdir is another configuration's.
    """
    path = workdir / "config.json"
    plain = json.loads(json.dumps(config.to_dict()))
    if path.exists():
        try:
            found = json.loads(path.read_text())["config"]
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: torn; delete {workdir} and run again") from error
        theirs, ours = flatten(found), flatten(plain)
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
    launcher = os.environ.get("SEMID_LAUNCHER", "python -m semid_jax.launch")
    workdir.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(
        path,
        {
            "config": plain,
            "command": f"{launcher} {shlex.join(argv)}".strip(),
            "versions": artifacts.versions(),
            "revision": artifacts.revision(),
        },
    )


def data_stage(config: ConfigDict, workdir: Path) -> RawDataset:
    """Source to ArrayRecord, and back into memory."""
    directory = workdir / "data"
    settings = {"data": config.data.to_dict(), "synthetic": config.synthetic.to_dict()}
    if not artifacts.matches(directory, "data", {}, settings):
        synthetic = section(config, "synthetic", SyntheticConfig)
        raw = read(section(config, "data", DataConfig), synthetic)
        with artifacts.atomic_folder(directory) as folder:
            builders.write(raw, folder, config.data.name)
            artifacts.seal(folder, "data", {}, settings)
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
        made, fitted = fit_transform(
            raw.catalogue,
            train_items(raw.interactions),
            section(config, "features", FeaturesConfig),
        )
        arrays = {f"x/{k}": v for k, v in made.x.items()}
        arrays |= {f"present/{k}": v for k, v in made.present.items()}
        arrays |= {f"fitted/{k}": v for k, v in fitted.items()}
        artifacts.write(directory, "features", arrays, inputs, settings)
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
        made = make_tokenizer(
            features,
            raw.interactions,
            pmat,
            section(config, "quantize", QuantizeConfig),
            config.train.max_length,
            config.seed,
        )
        arrays = tokenizer_arrays.to_arrays(made)
        artifacts.write(directory, "tokenizer", arrays, inputs, settings)
    arrays, _ = artifacts.read(directory, "tokenizer")
    tokenizer = tokenizer_arrays.from_arrays(arrays, features, pmat)
    print(
        f"tokenize: {len(tokenizer.coarse)} archetypes, {tokenizer.book.cells} coarse cells, "
        f"{tokenizer.book.digits} digits of {tokenizer.book.codewords} codewords"
    )
    return tokenizer


def train_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, tokenizer: Tokenizer
) -> tuple[Generator, Any]:
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
    step = make_step(generator, losses, optimiser, settings.group, config.seed)

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
        workdir / "checkpoints",
        workdir / "results" / "history.jsonl",
    )
    print(
        f"train: {progress.step} steps of {batches.steps_per_epoch} an epoch, best validation "
        f"NDCG@10 {progress.best:.4f} at step {progress.best_step}"
    )
    return generator, best


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
    made = with_model(empty_index(tokenizer, config.model), generator, params)
    inputs = {"tokenizer": artifacts.content_hash(workdir / "tokenizer")}
    arrays = {name: np.asarray(value) for name, value in index_arrays(made).items()}
    directory = workdir / "index" / "lists"
    artifacts.write(directory, "index", arrays, inputs, config.decode.to_dict())
    return index_from_arrays(artifacts.read(directory, "index")[0])


def profile_stage(
    config: ConfigDict,
    workdir: Path,
    evaluation: Evaluation,
    generator: Generator,
    params: Any,
    index: Index,
) -> None:
    """Traces decode steps of one batch, phase by phase."""
    settings: ProfileConfig = section(config, "profile", ProfileConfig)
    decode: DecodeConfig = section(config, "decode", DecodeConfig)
    rows = np.resize(np.arange(len(evaluation.side)), settings.batch)
    side = evaluation.side.take(np.sort(rows))
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
    batch = [jnp.asarray(a) for a in (side.coarse, side.fine, side.history > 0, side.archetype)]
    table = trace_phases(
        [
            ("trunk", lambda r: user_query(generator, params, index.tables, *batch)),
            ("coarse", lambda r: coarse(r["trunk"])),
            ("gather", lambda r: gather(r["trunk"], r["coarse"])),
            ("fine", lambda r: fine(r["trunk"], r["gather"])),
            ("top_k", lambda r: best(r["fine"], r["gather"][2])),
        ],
        {},
        settings.steps,
        workdir / "profile",
    )
    artifacts.write_json(workdir / "profile" / "phases.json", table)
    columns = [Column("phase"), *(Column(n, digits=3) for n in ("mean_ms", "p50_ms", "p95_ms"))]
    print(f"\nprofile: decode steps of {settings.batch} users, read back from the trace")
    print(text_table(table, [*columns, Column("share", percent=True)]))


def report_stage(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    tokenizer: Tokenizer,
    evaluation: Evaluation,
) -> None:
    """Metrics, lists, figures, page and the terminal's tables."""
    results, catalogue, side = workdir / "results", raw.catalogue, evaluation.side
    figures = results / "figures"
    write_metrics(results / "metrics.json", evaluation.metrics)
    write_recommendations(
        results / "recommendations.parquet",
        raw.interactions.user_ids[side.users],
        catalogue.item_ids,
        evaluation.lists.items,
        evaluation.lists.scores,
    )
    metrics = nest(evaluation.metrics)
    models, searches = comparison_rows(metrics), retrieval_rows(metrics)
    draw_training(read_history(results / "history.jsonl"), figures / "training.png")
    draw_bars(models, "ndcg@10", figures / "comparison.png")
    draw_bars(searches, "ndcg@10", figures / "retrieval.png", "search")
    at = raw.interactions.offsets[1:] - 1
    draw_alpha(
        tokenizer.readings.alpha[at],
        np.asarray(tokenizer.archetypes.alpha),
        tokenizer.archetype[at],
        tokenizer.module.modalities,
        figures / "alpha.png",
    )
    cells = tokenizer.book.cells
    sizes = np.stack([np.bincount(column[1:], minlength=cells) for column in tokenizer.coarse])
    draw_list_sizes(sizes, figures / "list_sizes.png")
    names = cell_names(tokenizer.coarse[0], catalogue.titles, cells)
    artifacts.write_json(results / "cells.json", names)
    stories = tell_users(raw, tokenizer, evaluation, config.report.users, figures)
    write_users(results / "users.json", stories)
    page = build_page(workdir)
    print("\nTest, history not excluded (best marked with a star)")
    columns = shown_columns([Column("model"), *metric_columns(ACCURACY)], models)
    print(text_table(models, columns))
    print("\nOne score, several searches")
    print(text_table(searches, shown_columns(RETRIEVAL_COLUMNS, searches)))
    for name in ("alpha_spearman", "alpha_spearman_oracle", "drift_f1", "churn"):
        if f"pmat.{name}" in evaluation.metrics:
            print(f"pmat.{name}: {evaluation.metrics[f'pmat.{name}']:.3f}")
    print(f"\nseed {config.seed}, {evaluation.metrics['run.seconds']:.0f} s; report: {page}")
