"""SASRec's stages: train, evaluate. No tokenizer, no index: items are dense vectors."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import artifacts
from semid_jax.checkpoint import tree_hash
from semid_jax.data.source import RawDataset
from semid_jax.eval.dense import dense_ranks, evaluate_dense, make_users, user_states
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.users import mean_metrics
from semid_jax.models.sasrec import SasRec, SasRecConfig
from semid_jax.recommenders.common import (
    Outcome,
    evaluate_once,
    fit,
    make_batches,
    release,
    section,
    validation_users,
)
from semid_jax.train.dense_objective import next_item_losses
from semid_jax.types import ItemFeatures


@functools.partial(jax.jit, static_argnames=("model",))
def last_state(model: SasRec, params: Any, vectors: jax.Array, history: jax.Array) -> jax.Array:
    """float32[B, D], the state after the last item of each history int32[B, T]."""
    states = model.apply(params, vectors, history, method=SasRec.states)
    last = jnp.maximum(jnp.sum(history > 0, axis=1) - 1, 0)
    return states[jnp.arange(len(last)), last]


def run(config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures) -> Outcome:
    """Runs them.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.
    """
    settings: SasRecConfig = section(config, "model", SasRecConfig)
    width = config.train.max_length
    model = SasRec(settings, raw.interactions.n_items, width)
    x = np.concatenate([features.x[name] for name in features.modalities], axis=1)
    inputs = jnp.asarray(x) if settings.features else None
    params = model.init(jax.random.key(config.seed), inputs, jnp.zeros((1, 2), jnp.int32))
    side = make_users(
        raw.interactions,
        "validation",
        width,
        validation_users(config, raw.interactions.n_users),
    )

    def read(params: Any) -> tuple[Any, Any]:
        vectors = model.apply(params, inputs, method=SasRec.items)
        return vectors, functools.partial(last_state, model, params, vectors)

    def validate(params: Any) -> dict[str, float]:
        vectors, encode = read(params)
        return mean_metrics(dense_ranks(vectors, user_states(encode, side), side)[0])

    batches = make_batches(config, raw.interactions)
    losses = next_item_losses(model, config.seed)
    params, progress = fit(config, workdir, batches, params, losses, inputs, validate)
    release()

    def evaluate() -> Evaluation:
        vectors, encode = read(params)
        return evaluate_dense(raw, features, encode, vectors, width, config.decode.k)

    evaluation = evaluate_once(
        workdir / "evaluation",
        {
            "data": artifacts.content_hash(workdir / "data"),
            "features": artifacts.content_hash(workdir / "features"),
            "model": tree_hash(params),
        },
        {"k": config.decode.k, "max_length": width},
        evaluate,
    )
    seconds = {
        "train": progress.seconds,
        "evaluate": artifacts.read_extra(workdir / "evaluation")["seconds"],
    }
    return Outcome(evaluation, params, progress, seconds)
