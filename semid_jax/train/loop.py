"""The training loop: one flat story per step, in a fixed order.

Order of a step: take the batch, step, advance; then, where due, log, evaluate, save. A checkpoint
holds the state, the number of batches taken and the losses summed since the last evaluation, so a
killed run repeats nothing, skips nothing and writes the same history.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from semid_jax.checkpoint import METRIC, Checkpoints
from semid_jax.data.pipeline import TrainBatches, iterator
from semid_jax.parallel import Parallel
from semid_jax.train.history import History
from semid_jax.train.optimiser import TrainConfig
from semid_jax.train.step import TrainState
from semid_jax.types import InputError

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
      seconds: spent on training up to here, by all processes that took part.
      sums: metrics summed since the last evaluation.
      inputs: name -> content hash of what it is trained on; {} of an older version's checkpoint.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    worse: int = 0
    done: bool = False
    seconds: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)


def train(
    state: TrainState,
    constants: Any,
    step: Callable[..., Any],
    batches: TrainBatches,
    evaluate: Evaluate,
    config: TrainConfig,
    parallel: Parallel,
    workdir: Path,
    inputs: Mapping[str, str],
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
      workdir: receives checkpoints/, results/history.jsonl and results/tensorboard/; a run found
        there is continued.
      inputs: name -> content hash of the artefacts that are trained on.

    Returns:
      The parameters that were best on validation, and where the run ended.

    Raises:
      InputError: the checkpoints found there are of other artefacts, or the training diverges.
    """
    checkpoints = Checkpoints(workdir / "checkpoints")
    progress, like = Progress(inputs=dict(inputs)), state
    found = checkpoints.latest(like)
    if found is not None:
        state, notes = found
        progress = Progress(**notes)
        changed = [name for name, of in progress.inputs.items() if inputs.get(name) != of]
        if changed:
            raise InputError(
                f"{workdir / 'checkpoints'}: trained on another artefact ({', '.join(changed)}); "
                "delete it to train again, or name another --workdir"
            )
        print(f"train: continues at step {progress.step}")
    results = workdir / "results"
    history = History(results / "history.jsonl", results / "tensorboard", progress.step)
    if not progress.done:
        trainer = Trainer(
            parallel.compile(step),
            parallel.share(constants),
            batches,
            evaluate,
            config,
            parallel,
            checkpoints,
            history,
        )
        trainer.run(parallel.replicate(state), progress)
    best, _ = checkpoints.load(progress.best_step, like)
    checkpoints.close()
    history.close()
    return best.params, progress


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What stays the same from step to step.

    Attributes:
      step: compiled for all devices.
      constants: on all devices.
      batches: training data in random access.
      evaluate: parameters to validation metrics.
      config: settings.
      parallel: devices.
      checkpoints: where states go.
      history: where evaluations go.
    """

    step: Callable[..., Any]
    constants: Any
    batches: TrainBatches
    evaluate: Evaluate
    config: TrainConfig
    parallel: Parallel
    checkpoints: Checkpoints
    history: History

    def run(self, state: Any, progress: Progress) -> None:
        """Steps until `progress.done`; evaluates and saves on the way.

        Args:
          state: on all devices; donated.
          progress: where to start; kept up to date.
        """
        config, an_epoch = self.config, self.batches.steps_per_epoch
        total, every = config.epochs * an_epoch, config.evaluate_every * an_epoch
        stream = iterator(self.batches, progress.step)
        bar = tqdm(
            total=total,
            initial=progress.step,
            unit="step",
            desc="train",
            file=sys.stderr,
            mininterval=2.0,
            dynamic_ncols=True,
        )
        sums = _replicated(progress.sums, self.parallel)
        before, seen = progress.seconds, progress.sums.get("count", 0.0)
        started = since = time.perf_counter()
        while not progress.done:
            state, metrics = self.step(state, self.constants, self.parallel.split(next(stream)))
            sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
            progress.step += 1
            bar.update()
            last = progress.step == total
            evaluates = progress.step % every == 0 or last
            saves = config.checkpoint_steps and progress.step % config.checkpoint_steps == 0
            if progress.step % 20 == 0 or evaluates or saves:
                progress.sums = {k: float(v) for k, v in self.parallel.fetch(sums).items()}
                speed = (progress.sums["count"] - seen) / (time.perf_counter() - since)
                loss = _means(progress.sums)["item_loss"]
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} items/s")
            if not (evaluates or saves):
                continue
            metric = None
            if evaluates:
                metric = self._evaluate(state, progress)
                progress.done = last or progress.worse >= config.patience
                sums, seen, since = None, 0.0, time.perf_counter()
            progress.seconds = before + time.perf_counter() - started
            notes = dataclasses.asdict(progress)
            self.checkpoints.save(progress.step, self.parallel.fetch(state), notes, metric)
        bar.close()

    def _evaluate(self, state: Any, progress: Progress) -> float:
        """Evaluates, notes the result in `progress` and in the history, and returns NDCG@10."""
        losses = _means(progress.sums)
        wrong = [name for name, value in losses.items() if not np.isfinite(value)]
        if wrong:
            raise InputError(
                f"train: {wrong[0]} is {losses[wrong[0]]} by step {progress.step}, the training "
                "diverged; set a smaller train.lr and name another --workdir"
            )
        scores = self.evaluate(self.parallel.fetch(state).params)
        metric = scores["ndcg@10"]
        named = {f"validation.{name}": value for name, value in scores.items()}
        self.history.write(progress.step, {**{f"train.{k}": v for k, v in losses.items()}, **named})
        progress.sums = {}
        progress.worse = 0 if metric > progress.best else progress.worse + 1
        if metric >= progress.best:  # as Orbax does: of equals, the last is kept
            progress.best, progress.best_step = metric, progress.step
        tqdm.write(
            f"step {progress.step}: item loss {losses['item_loss']:.3f}, {METRIC} {metric:.4f}"
            + (" (best)" if progress.worse == 0 else ""),
            file=sys.stderr,
        )
        return metric


def _replicated(sums: dict[str, float], parallel: Parallel) -> Any:
    """Sums of an earlier process, as the step's metrics are; None where there are none."""
    if not sums:
        return None
    return parallel.replicate({name: jnp.float32(value) for name, value in sums.items()})


def _means(sums: dict[str, float]) -> dict[str, float]:
    """Means over the steps of the summed metrics."""
    return {
        name: value / sums["steps"]
        for name, value in sums.items()
        if name not in ("steps", "count")
    }
