"""What the stages of every recommender share: training that resumes, test scored once."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.checkpoint import tree_hash
from semid_jax.data.pipeline import PipelineConfig, TrainBatches
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.store import KIND, read_evaluation, write_evaluation
from semid_jax.parallel import Parallel
from semid_jax.train.loop import Progress, train
from semid_jax.train.optimiser import TrainConfig, make_optimiser
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.step import Losses, first_state, make_step
from semid_jax.types import Interactions


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a recommender's stages leave for the report.

    Attributes:
      evaluation: of the test.
      params: best on validation.
      progress: of the training.
      seconds: of the recommender's own stages, by name.
      tokenizer: of its semantic IDs; None without.
    """

    evaluation: Evaluation
    params: Any
    progress: Progress
    seconds: dict[str, float]
    tokenizer: Tokenizer | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A recommender ready to be trained and evaluated.

    Attributes:
      params: as initialised.
      losses: what it is trained on.
      constants: passed to every step.
      validate: parameters to validation metrics, for early stopping.
      evaluate: parameters to the evaluation.
      has_ids: it reads the artefact `tokenizer`.
    """

    params: Any
    losses: Losses
    constants: Any
    validate: Callable[[Any], dict[str, float]]
    evaluate: Callable[[Any], Evaluation]
    has_ids: bool = False


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


def hashes(workdir: Path, *names: str) -> dict[str, str]:
    """Content hashes of those of a run's artefacts that it has, by name."""
    there = [name for name in names if (workdir / name).exists()]
    return {name: artifacts.content_hash(workdir / name) for name in there}


def make_batches(
    config: ConfigDict,
    interactions: Interactions,
    archetype: np.ndarray | None = None,
    belief: np.ndarray | None = None,
) -> TrainBatches:
    """The training batches that the section `train` asks for.

    Args:
      config: resolved.
      interactions: histories.
      archetype: int[nnz], the user's archetype before every interaction, or None.
      belief: float16[nnz, M, K], what is believed of the user then, or None.
    """
    settings: TrainConfig = section(config, "train", TrainConfig)
    pipeline = PipelineConfig(
        settings.batch_size,
        settings.group,
        settings.max_length,
        settings.buckets,
        settings.sliding,
        config.seed,
    )
    return TrainBatches(interactions, pipeline, archetype, belief)


def validation_users(config: ConfigDict, n_users: int) -> np.ndarray:
    """int64[u], the users that early stopping looks at, the same for every model of a seed."""
    users, count = np.arange(n_users), config.train.evaluate_users
    if not count or count >= n_users:
        return users
    rng = np.random.default_rng((config.seed, 3))
    return np.sort(rng.choice(users, count, replace=False))


def fit(
    config: ConfigDict,
    workdir: Path,
    batches: TrainBatches,
    params: Any,
    losses: Losses,
    constants: Any,
    validate: Callable[[Any], dict[str, float]],
) -> tuple[Any, Progress]:
    """Trains; a run that was killed goes on.

    Args:
      config: resolved.
      workdir: of the run.
      batches: training data.
      params: as initialised.
      losses: what is trained on.
      constants: passed to every step.
      validate: parameters to validation metrics.

    Returns:
      The parameters that were best on validation, on the device, and where the run ended.
    """
    settings: TrainConfig = section(config, "train", TrainConfig)
    parallel = Parallel(settings.parallel)
    parallel.check_batch(settings.batch_size, settings.group)
    optimiser = make_optimiser(settings, batches.steps_per_epoch)
    state = first_state(params, optimiser, config.seed)
    step = make_step(losses, optimiser)
    inputs = hashes(workdir, "data", "expanded", "features", "tokenizer")
    best, progress = train(
        state, constants, step, batches, validate, settings, parallel, workdir, inputs
    )
    print(
        f"train: {progress.step} steps of {batches.steps_per_epoch} an epoch, best validation "
        f"NDCG@10 {progress.best:.4f} at step {progress.best_step}"
    )
    # Numpy's arrays would be handed over anew in every call: .05 ms of one user's .4.
    return jax.device_put(best), progress


def evaluate_once(
    workdir: Path,
    params: Any,
    settings: Mapping[str, Any],
    evaluate: Callable[[], Evaluation],
    inputs: Mapping[str, str] | None = None,
) -> Evaluation:
    """Validation and test, scored if that was not done for the same inputs before.

    Args:
      workdir: of the run; its data and features are inputs.
      params: of the model; an input.
      settings: that it depends on.
      evaluate: does it.
      inputs: name -> content hash of what else it is made from.
    """
    directory = workdir / "evaluation"
    inputs = {
        "data": artifacts.content_hash(workdir / "data"),
        "features": artifacts.content_hash(workdir / "features"),
        "model": tree_hash(params),
        **(inputs or {}),
    }
    if not artifacts.matches(directory, KIND, inputs, settings):
        started = time.perf_counter()
        write_evaluation(directory, evaluate(), inputs, settings, **since(started))
    return read_evaluation(directory)


def train_and_evaluate(
    config: ConfigDict, workdir: Path, interactions: Interactions, made: Prepared
) -> Outcome | None:
    """The stages of a baseline once its model stands.

    Args:
      config: resolved.
      workdir: of the run.
      interactions: histories.
      made: the model.

    Returns:
      None after training if the configuration says `validate_only`.
    """
    batches = make_batches(config, interactions)
    params, progress = fit(
        config, workdir, batches, made.params, made.losses, made.constants, made.validate
    )
    if config.validate_only:
        return None
    release()
    settings = {"decode": config.decode.to_dict(), "max_length": config.train.max_length}
    inputs, seconds = {}, {}
    if made.has_ids:
        tokenizer = workdir / "tokenizer"
        inputs["tokenizer"] = artifacts.content_hash(tokenizer)
        seconds["tokenize"] = artifacts.read_extra(tokenizer)["seconds"]
    evaluation = evaluate_once(workdir, params, settings, lambda: made.evaluate(params), inputs)
    seconds |= {
        "train": progress.seconds,
        "evaluate": artifacts.read_extra(workdir / "evaluation")["seconds"],
    }
    return Outcome(evaluation, params, progress, seconds)
