"""What a benchmark of decoding asks: a trained model, its index, and users held out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from semid_jax.data.source import RawDataset
from semid_jax.decode.exact import retrieve_exact
from semid_jax.decode.index import Index, build_index
from semid_jax.decode.inverted import cell_places
from semid_jax.decode.rescoring import DenseItems
from semid_jax.decode.score import Query, Tables
from semid_jax.eval.model import Model, ReadSide, dense_items, hdnag_queries
from semid_jax.eval.probing import item_places, probes_for_recall
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.searching import Queries, run_search, some_vectors
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.quantize.fit import encode_items
from semid_jax.recommenders.common import release, section
from semid_jax.recommenders.hdnag import tokenize_stage, train_stage
from semid_jax.recommenders.hdnag_search import index_stage
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import ItemFeatures

SAMPLE_SEED = 0  # of the users: the same in every run


@dataclasses.dataclass(frozen=True)
class Validation:
    """Users on validation, by whom the sizes of searches are chosen.

    Attributes:
      queries: of U users.
      best: int32[U, k], their exact lists.
      recall: share of those that a search is to find.
      score: that ranks them, "S1" or "S2".
    """

    queries: Queries
    best: np.ndarray
    recall: float
    score: str = "S1"

    def fewest(self, place: Callable[[Query, jax.Array], jax.Array], parts: int, reads: str) -> int:
        """How many cells, "probes", or "leaves" a search must read, see `probes_for_recall`."""
        places = item_places(self.queries, self.best, place)
        chosen, missed = probes_for_recall(places, parts, self.recall)
        name = {"probes": "cells"}.get(reads, reads)
        found = f"{100 - 100 * missed.mean:.1f} % of the exact lists by {self.score} on validation"
        print(f"decode_speed: {chosen:,} of {parts:,} {name} hold {found}")
        return chosen


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained model and the users it serves.

    Attributes:
      tokenizer: of its semantic IDs.
      model: best on validation.
      index: with the model's tables.
      side: held-out users.
      queries: of all of them.
      validation: the same users one item before.
      probes: P, chosen on validation.
    """

    tokenizer: Tokenizer
    model: Model
    index: Index
    side: ReadSide
    queries: Queries
    validation: Validation
    probes: int

    @functools.cached_property
    def dense(self) -> DenseItems | None:
        """The catalogue's side of the dense term; None where S1 is all there is."""
        return dense_items(self.model)

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """float32[S, F], of users on validation: what a decoder may be fitted to."""
        return some_vectors(self.validation.queries)

    def some_side(self, count: int) -> ReadSide:
        """Held-out users from all over."""
        return self.side.take(np.linspace(0, len(self.side) - 1, count, dtype=int))

    def some_queries(self, batch: int, count: int) -> list[Any]:
        """A few batches of users from all over."""
        part = self.some_side(batch * count)
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

    k, (_, queries) = config.decode.k, asked("validation")
    best = run_search(queries, functools.partial(retrieve_exact, index, k=k), "search exact").items
    validation = Validation(queries, best, recall)
    place = functools.partial(cell_places, index)
    probes = config.decode.probes or validation.fewest(place, index.n_cells, "probes")
    return Served(tokenizer, model, index, *asked("test"), validation, probes)


def build(served: Served, balance: float) -> Index:
    """From z to cells and codes of all items and their lists; the codebook is there."""
    tokenizer, tables = served.tokenizer, served.index.tables
    coarse, fine = encode_items(tokenizer.book, tokenizer.points, balance)
    own = Tables(tables.coarse, tables.fine[: fine.shape[-1]])  # less what archetypes share
    return build_index(coarse, fine, np.zeros(coarse.shape, np.float32), own)
