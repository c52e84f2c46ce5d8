"""The training loop: one flat story per step, in a fixed order.

Order of a step: take the batch, step, advance; then, where due, log, evaluate, save. A checkpoint
holds the state and the number of batches taken, so a killed run repeats nothing and skips nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tensorboardX import SummaryWriter
from tqdm import tqdm

from semid_jax.checkpoint import METRIC, Checkpoints
from semid_jax.data.pipeline import TrainBatches, iterator
from semid_jax.parallel import Parallel
from semid_jax.train.optimiser import TrainConfig
from semid_jax.train.step import TrainState

Evaluate = Callable[[Any], dict[str, float]]


@dataclasses.dataclass
class Progress:
    """Where the run stands, saved with every checkpoint.

    Attributes:
      step: steps done, batches taken.
      best: best validation NDCG@10.
      best_step: when.
      worse: evaluations since.
      done: the run has ended.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    worse: int = 0
    done: bool = False


class History:
    """history.jsonl and TensorBoard; a resumed run cuts both back to its checkpoint."""

    def __init__(self, path: Path, tensorboard: Path, step: int) -> None:
        """Keeps lines up to `step`, drops the rest."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, path)
        self._path = path
        self._writer = SummaryWriter(str(tensorboard), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one evaluation."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name.replace("@", "_at_"), value, step)
        self._writer.flush()

    def close(self) -> None:
        """Ends the TensorBoard file."""
        self._writer.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line torn by a kill


def train(
    state: TrainState,
    constants: Any,
    step: Callable[..., Any],
    batches: TrainBatches,
    evaluate: Evaluate,
    config: TrainConfig,
    parallel: Parallel,
    directory: Path,
    history_path: Path,
) -> tuple[Any, Progress]:
    """Trains until the epochs are over or validation stops improving.

    Args:
      state: the first state.
      constants: passed to every step.
      step: of `make_step`.
      batches: training data in random access.
      evaluate: parameters to validation metrics, "ndcg@10" among them.
      config: settings.
      parallel: devices.
      directory: of the checkpoints; a run found there is continued.
      history_path: history.jsonl.

    Returns:
      The parameters that were best on validation, and where the run ended.
    """
    checkpoints = Checkpoints(directory)
    progress = Progress()
    like = state
    found = checkpoints.latest(like)
    if found is not None:
        state, notes = found
        progress = Progress(**notes)
        print(f"train: continues at step {progress.step}")
    history = History(history_path, history_path.parent / "tensorboard", progress.step)
    total = config.epochs * batches.steps_per_epoch
    every = config.evaluate_every * batches.steps_per_epoch
    if not progress.done:
        progress = _steps(
            parallel.replicate(state),
            parallel.replicate(constants),
            parallel.compile(step),
            batches,
            evaluate,
            config,
            parallel,
            checkpoints,
            history,
            progress,
            total,
            every,
        )
    best, _ = checkpoints.load(progress.best_step, like)
    checkpoints.close()
    history.close()
    return best.params, progress


def _steps(
    state: Any,
    constants: Any,
    step: Callable[..., Any],
    batches: TrainBatches,
    evaluate: Evaluate,
    config: TrainConfig,
    parallel: Parallel,
    checkpoints: Checkpoints,
    history: History,
    progress: Progress,
    total: int,
    every: int,
) -> Progress:
    stream = iterator(batches, progress.step)
    bar = tqdm(
        total=total,
        initial=progress.step,
        unit="step",
        desc="train",
        file=sys.stderr,
        mininterval=2.0,
        dynamic_ncols=True,
    )
    sums: Any = None
    started = time.perf_counter()
    while not progress.done:
        state, metrics = step(state, constants, parallel.split(next(stream)))
        sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
        progress.step += 1
        bar.update()
        last = progress.step == total
        evaluates = progress.step % every == 0 or last
        saves = config.checkpoint_steps and progress.step % config.checkpoint_steps == 0
        if progress.step % 20 == 0 or evaluates:
            values = _means(parallel.fetch(sums))
            speed = values.pop("count") / (time.perf_counter() - started)
            bar.set_postfix_str(f"loss {values['item_loss']:.3f}, {speed:,.0f} items/s")
        if not (evaluates or saves):
            continue
        metric = None
        if evaluates:
            metric = _evaluation(state, evaluate, parallel, progress, history, values)
            progress.done = last or progress.worse >= config.patience
            sums, started = None, time.perf_counter()
        checkpoints.save(progress.step, parallel.fetch(state), dataclasses.asdict(progress), metric)
    bar.close()
    return progress


def _evaluation(
    state: Any,
    evaluate: Evaluate,
    parallel: Parallel,
    progress: Progress,
    history: History,
    losses: dict[str, float],
) -> float:
    """Evaluates, notes the result in `progress` and in the history, and returns NDCG@10."""
    scores = evaluate(parallel.fetch(state).params)
    metric = scores["ndcg@10"]
    named = {f"validation.{name}": value for name, value in scores.items()}
    history.write(progress.step, {**{f"train.{k}": v for k, v in losses.items()}, **named})
    progress.worse = 0 if metric > progress.best else progress.worse + 1
    if metric >= progress.best:  # as Orbax does: of equals, the last is kept
        progress.best, progress.best_step = metric, progress.step
    tqdm.write(
        f"step {progress.step}: item loss {losses['item_loss']:.3f}, {METRIC} {metric:.4f}"
        + (" (best)" if progress.worse == 0 else ""),
        file=sys.stderr,
    )
    return metric


def _means(sums: dict[str, Any]) -> dict[str, float]:
    """Means per position of the summed metrics; "count" stays a sum."""
    steps = float(sums["steps"])
    kept = {name: float(value) / steps for name, value in sums.items() if name != "steps"}
    return {**kept, "count": float(sums["count"])}
