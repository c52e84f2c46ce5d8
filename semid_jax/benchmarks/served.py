"""What a benchmark of decoding asks: a trained model, its index, and users held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from semid_jax.data.source import RawDataset
from semid_jax.decode.index import Index, build_index
from semid_jax.decode.score import Tables
from semid_jax.eval.model import Model, ReadSide, hdnag_queries
from semid_jax.eval.probing import probes_for_recall
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.searching import Queries, some_vectors
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.quantize.fit import encode_items
from semid_jax.recommenders.common import release, section
from semid_jax.recommenders.hdnag import index_stage, tokenize_stage, train_stage
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import ItemFeatures

SAMPLE_SEED = 0  # of the users: the same in every run


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained model and the users it serves.

    Attributes:
      tokenizer: of its semantic IDs.
      model: best on validation.
      index: with the model's tables.
      side: held-out users.
      queries: of all of them.
      vectors: float32[S, F], of users on validation: what a decoder may be fitted to.
      probes: P, chosen on validation.
    """

    tokenizer: Tokenizer
    model: Model
    index: Index
    side: ReadSide
    queries: Queries
    vectors: np.ndarray
    probes: int

    def some_queries(self, batch: int, count: int) -> list[Any]:
        """A few batches of users from all over."""
        rows = np.resize(
            np.linspace(0, len(self.side) - 1, batch * count, dtype=int), batch * count
        )
        part = self.side.take(np.sort(rows))
        made = hdnag_queries(self.model, self.index, part, batch, shows_bar=False)
        return [query for query, _, _ in made]


def serve(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    features: ItemFeatures,
    users: int,
    recall: float,
) -> Served:
    """The model, by HDNAG's stages, and some held-out users.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.
      users: how many, 0 for all.
      recall: of the exact k best, see `DecodeSpeedConfig`.
    """
    tokenizer = tokenize_stage(config, workdir, raw, features)
    release()
    sizes = section(config, "model", GeneratorConfig)
    model, _ = train_stage(config, workdir, raw, tokenizer, sizes)
    release()
    index = index_stage(config, workdir, raw, tokenizer, model)
    chosen = None
    if 0 < users < raw.interactions.n_users:
        rng = np.random.default_rng(SAMPLE_SEED)
        chosen = np.sort(rng.choice(raw.interactions.n_users, users, replace=False))

    def asked(split: str) -> tuple[ReadSide, Queries]:
        width = config.train.max_length
        side, _, _ = read_side(tokenizer, raw.interactions, split, width, chosen)
        return side, hdnag_queries(model, index, side)

    side, queries = asked("validation")
    probes = config.decode.probes
    if not probes:
        of_lists = side, recall, config.decode.k
        probes, missed = probes_for_recall(queries, index, *of_lists)
        found = f"{100 - 100 * missed[probes].mean:.1f} % of the exact lists on validation"
        print(f"decode_speed: {probes} of {index.n_cells} cells hold {found}")
    vectors = some_vectors(queries)
    return Served(tokenizer, model, index, *asked("test"), vectors, probes)


def build(served: Served, balance: float) -> Index:
    """From z to cells and codes of all items and their lists; the codebook is there."""
    tokenizer, tables = served.tokenizer, served.index.tables
    coarse, fine = encode_items(tokenizer.book, tokenizer.points, balance)
    own = Tables(tables.coarse, tables.fine[: fine.shape[-1]])  # less what archetypes share
    return build_index(coarse, fine, np.zeros(coarse.shape, np.float32), own)
