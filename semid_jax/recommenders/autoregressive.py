"""The stages of generators of codes, GPT2 and TIGER: tokenize, train, evaluate by beam search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax.data.source import RawDataset
from semid_jax.decode.config import BeamConfig
from semid_jax.decode.trie import build_trie, next_codes
from semid_jax.eval.beam import beam_lists, evaluate_beam, items_of
from semid_jax.eval.dense import make_users
from semid_jax.eval.evaluation import Evaluation
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.users import mean_metrics
from semid_jax.models.gpt2 import Gpt2, Gpt2Config
from semid_jax.models.tiger import Tiger, TigerConfig
from semid_jax.quantize.static import residual_codes
from semid_jax.recommenders.common import (
    Outcome,
    Prepared,
    release,
    section,
    train_and_evaluate,
    validation_users,
)
from semid_jax.recommenders.static_ids import static_ids_stage
from semid_jax.train.code_objective import CodeTable, gpt2_losses, tiger_losses
from semid_jax.train.step import Losses
from semid_jax.types import InputError, Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class Kind:
    """One of these recommenders.

    Attributes:
      module: made of (settings, levels, codewords, max_length).
      settings: dataclass of the section `model`.
      losses: what it is trained on.
      sliding: whether it learns from one target per window only.
      inputs: codes uint8[1, 2, L] to what `init` takes.
    """

    module: type
    settings: Callable[..., Any]
    losses: Callable[..., Losses]
    sliding: bool
    inputs: Callable[[jax.Array], tuple[jax.Array, ...]]


MODELS: Mapping[str, Kind] = {
    "gpt2": Kind(Gpt2, Gpt2Config, gpt2_losses, False, lambda codes: (codes,)),
    "tiger": Kind(
        Tiger,
        TigerConfig,
        tiger_losses,
        True,
        lambda codes: (codes, jnp.ones((1, 2), bool), codes[:, 0]),
    ),
}


def check_settings(config: ConfigDict) -> None:
    """Refuses windows that the model cannot be trained on, and lists longer than the beam.

    Raises:
      InputError: names the field and the remedy.
    """
    section(config, "decode", BeamConfig)
    if MODELS[config.recommender].sliding and not config.train.sliding:
        raise InputError(f"train.sliding: {config.recommender} has one target per window; set True")
    if config.decode.k > config.decode.beam:
        raise InputError(
            f"decode.k: {config.decode.k} items from decode.beam = {config.decode.beam}; raise it"
        )


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
    generator = prepare(config, workdir, raw, features)
    return train_and_evaluate(config, workdir, generator.reads, generator.made)


@dataclasses.dataclass(frozen=True)
class CodeGenerator:
    """A generator of codes, ready to be trained.

    Attributes:
      model: `Gpt2` or `Tiger`.
      table: uint8[N + 1, L], codes of all items, each its own.
      reads: histories in IDs.
      made: how it is trained and evaluated.
    """

    model: Any
    table: np.ndarray
    reads: Interactions
    made: Prepared


def prepare(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> CodeGenerator:
    """The tokenize stage, and a model as initialised; arguments are those of `run`."""
    kind = MODELS[config.recommender]
    decode = section(config, "decode", BeamConfig)
    ids = static_ids_stage(config, workdir, raw, features)
    release()
    table = residual_codes(ids)
    codes, trie = jnp.asarray(table), build_trie(table)
    codewords = int(table.max()) + 1
    width = config.train.max_length
    model = kind.module(section(config, "model", kind.settings), table.shape[1], codewords, width)
    params = jax.jit(model.init)(jax.random.key(config.seed), *kind.inputs(codes[1:3][None]))
    users = validation_users(config, raw.interactions.n_users)
    reads = ids.read(raw.interactions)
    side = make_users(reads, "validation", width, users)
    targets = ids.owner[side.targets]

    def validate(params: Any) -> dict[str, float]:
        lists = beam_lists(model, params, trie, codes, side, decode, shows_bar=False)
        return mean_metrics(target_ranks(items_of(lists, ids.owner).items, targets))

    def evaluate(params: Any) -> Evaluation:
        return evaluate_beam(raw, features, ids, model, params, trie, codes, decode, width)

    following = jnp.asarray(next_codes(table)) if model.config.constrained else None
    constants = CodeTable(codes, following)
    made = Prepared(params, kind.losses(model), constants, validate, evaluate, has_ids=True)
    return CodeGenerator(model, table, reads, made)
