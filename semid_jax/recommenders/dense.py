"""The stages of models with dense item vectors: train, evaluate; no tokenizer and no index."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax.data.source import RawDataset
from semid_jax.decode.config import ListConfig
from semid_jax.eval.dense import dense_ranks, evaluate_dense, make_users, user_states
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.users import mean_metrics
from semid_jax.models.bert4rec import Bert4Rec, Bert4RecConfig
from semid_jax.models.gru4rec import Gru4Rec, Gru4RecConfig
from semid_jax.models.sasrec import SasRec, SasRecConfig
from semid_jax.recommenders.common import (
    Outcome,
    Prepared,
    section,
    train_and_evaluate,
    validation_users,
)
from semid_jax.train.dense_objective import cloze_losses, next_item_losses
from semid_jax.train.step import Losses
from semid_jax.types import ItemFeatures

# Module, its configuration, and what it is trained on.
MODELS: Mapping[str, tuple[type, Callable[..., Any], Callable[..., Losses]]] = {
    "sasrec": (SasRec, SasRecConfig, next_item_losses),
    "gru4rec": (Gru4Rec, Gru4RecConfig, next_item_losses),
    "bert4rec": (Bert4Rec, Bert4RecConfig, cloze_losses),
}


def check_settings(config: ConfigDict) -> None:
    """Refuses lists without items.

    Raises:
      InputError: names the field.
    """
    section(config, "decode", ListConfig)


@functools.partial(jax.jit, static_argnames=("model",))
def _items(model: Any, params: Any, features: Any) -> jax.Array:
    vectors: jax.Array = model.apply(params, features, method="items")
    return vectors


@functools.partial(jax.jit, static_argnames=("model",))
def _last(model: Any, params: Any, vectors: jax.Array, history: jax.Array) -> jax.Array:
    state: jax.Array = model.apply(params, vectors, history, method="last")
    return state


def run(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> Outcome | None:
    """Runs them; None after training if the configuration says `validate_only`.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.
    """
    kind, settings_kind, make_losses = MODELS[config.recommender]
    settings = section(config, "model", settings_kind)
    width = config.train.max_length
    model = kind(settings, raw.interactions.n_items, width)
    x = np.concatenate([features.x[name] for name in features.modalities], axis=1)
    inputs = jnp.asarray(x) if settings.features else None
    params = jax.jit(model.init)(jax.random.key(config.seed), inputs, jnp.zeros((1, 2), jnp.int32))
    side = make_users(
        raw.interactions,
        "validation",
        width,
        validation_users(config, raw.interactions.n_users),
    )

    def read(params: Any) -> tuple[Any, Any]:
        vectors = _items(model, params, inputs)
        return vectors, functools.partial(_last, model, params, vectors)

    def validate(params: Any) -> dict[str, float]:
        vectors, encode = read(params)
        return mean_metrics(dense_ranks(vectors, user_states(encode, side, False), side)[0])

    def evaluate(params: Any) -> Evaluation:
        vectors, encode = read(params)
        return evaluate_dense(raw, features, encode, vectors, width, config.decode.k)

    losses = make_losses(model)
    made = Prepared(params, losses, inputs, validate, evaluate)
    return train_and_evaluate(config, workdir, raw.interactions, made)
