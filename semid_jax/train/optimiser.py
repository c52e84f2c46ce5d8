"""The optimiser and how long and how hard it works."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax

from semid_jax.settings import check_least
from semid_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the generator is trained.

    Attributes:
      epochs: at most so many times as many targets as the train part has.
      batch_size: B, windows of a batch.
      group: windows that share an archetype; divides batch_size / devices.
      max_length: T.
      buckets: window lengths that batches are padded to.
      sliding: see data.pipeline.PipelineConfig.
      lr: learning rate, peak of the schedule.
      warmup_steps: linear warm-up; then cosine decay to a tenth over `epochs`.
      weight_decay: of AdamW, on matrices only.
      clip: of the gradient's global norm.
      evaluate_every: epochs between evaluations on validation.
      evaluate_users: users of that evaluation, 0 = all.
      patience: evaluations without a better one before training stops.
      checkpoint_steps: steps between checkpoints besides those at evaluations, 0 = none.
      parallel: "auto", "pmap" or "shard_map".
    """

    epochs: int = 20
    batch_size: int = 128
    group: int = 16
    max_length: int = 50
    buckets: tuple[int, ...] = (10, 20, 50, 100)
    sliding: bool = False
    lr: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    evaluate_every: int = 1
    evaluate_users: int = 2000
    patience: int = 5
    checkpoint_steps: int = 200
    parallel: str = "auto"

    def __post_init__(self) -> None:
        """Checks what a reader can get wrong.

        Raises:
          InputError: a number out of its range.
        """
        ones = ("epochs", "batch_size", "group", "max_length", "evaluate_every", "patience")
        noughts = ("warmup_steps", "evaluate_users", "checkpoint_steps")
        check_least(self, "train", dict.fromkeys(ones, 1) | dict.fromkeys(noughts, 0))
        if min(self.buckets, default=1) < 1:
            raise InputError(f"train.buckets={self.buckets}: lengths of 1 or more")


def matrices(params: Any) -> Any:
    """Which parameters decay: those with two or more axes."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_optimiser(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay (Loshchilov and Hutter 2019).

    Args:
      config: settings.
      steps_per_epoch: to turn epochs into steps.
    """
    total = max(config.epochs * steps_per_epoch, 2)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.lr,
        min(config.warmup_steps, total // 2),
        total,
        config.lr / 10,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay, mask=matrices),
    )
