"""RPG's stages: tokenize, train, evaluate by exact and by graph search."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax.data.source import RawDataset
from semid_jax.decode.config import GraphConfig
from semid_jax.decode.index import Index, build_index
from semid_jax.decode.score import Tables
from semid_jax.eval.dense import make_users
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.rpg import evaluate_rpg, rpg_queries
from semid_jax.eval.searching import Queries, exact_ranks
from semid_jax.eval.users import Users, mean_metrics
from semid_jax.models.rpg import Rpg, RpgConfig
from semid_jax.quantize.static import StaticIds
from semid_jax.recommenders.common import (
    Outcome,
    Prepared,
    release,
    section,
    train_and_evaluate,
    validation_users,
)
from semid_jax.recommenders.static_ids import static_ids_stage
from semid_jax.train.rpg_objective import rpg_losses
from semid_jax.types import InputError, ItemFeatures


def check_settings(config: ConfigDict) -> None:
    """Refuses what cannot be.

    Raises:
      InputError: names the field and the remedy.
    """
    section(config, "decode", GraphConfig)
    if config.fuse.method:
        raise InputError("fuse.method: rpg quantises by itself; leave it empty")


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
    ids = static_ids_stage(config, workdir, raw, features)
    release()
    width = config.train.max_length
    book = ids.book
    model = Rpg(section(config, "model", RpgConfig), book.digits, book.codewords, width)
    fine = jnp.asarray(ids.fine)
    key = jax.random.key(config.seed)
    params = jax.jit(model.init)(key, fine[:2][None], jnp.ones((1, 2), bool))
    empty = one_cell_index(ids, config.model.width)
    users = validation_users(config, raw.interactions.n_users)
    side = make_users(raw.interactions, "validation", width, users)

    def with_model(params: Any) -> Index:
        tables = Tables(empty.tables.coarse, model.apply(params, method="tables"))
        return dataclasses.replace(empty, tables=tables)

    def validate(params: Any) -> dict[str, float]:
        index = with_model(params)
        queries = rpg_queries(model, params, index, fine, side, shows_bar=False)
        return mean_metrics(exact_ranks(queries, index, side)[0])

    def evaluate(params: Any) -> Evaluation:
        index = with_model(params)

        def queries(side: Users) -> Queries:
            return rpg_queries(model, params, index, fine, side)

        settings = section(config, "decode", GraphConfig)
        return evaluate_rpg(raw, features, ids, queries, index, settings, width, config.seed)

    losses = rpg_losses(model)
    made = Prepared(params, losses, fine, validate, evaluate, has_ids=True)
    return train_and_evaluate(config, workdir, raw.interactions, made)


def one_cell_index(ids: StaticIds, width: int) -> Index:
    """RPG's catalogue as an index of one cell, before a model has given it embeddings."""
    rows = (1, len(ids.fine))
    tables = Tables(jnp.zeros((1, 1)), jnp.zeros((ids.book.digits, ids.book.codewords, width)))
    return build_index(np.zeros(rows, np.int32), ids.fine[None], np.zeros(rows, np.float32), tables)
