"""Generators of codes evaluated: ranked lists by constrained beam search."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from semid_jax.data.source import RawDataset
from semid_jax.decode.beam import beam_search
from semid_jax.decode.config import BeamConfig
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.trie import Trie
from semid_jax.eval.dense import make_users
from semid_jax.eval.evaluation import Evaluation, describe_lists, whole_prefix
from semid_jax.eval.ranking import (
    list_summary,
    named,
    target_ranks,
    without_seen,
)
from semid_jax.eval.users import Lists, Users, encode_users
from semid_jax.models.rows import without_padding
from semid_jax.models.trunk import bytes_touched
from semid_jax.quantize.static import StaticIds, static_health
from semid_jax.turns import cached_turns
from semid_jax.types import ItemFeatures

POSITIONS = 4096  # of a pass, times codes and hypotheses: less than a pass of items holds


@functools.partial(jax.jit, static_argnames=("model", "beam", "k", "packed"))
def generate(
    model: Any,
    params: Any,
    trie: Trie,
    codes: jax.Array,
    history: jax.Array,
    beam: int,
    k: int,
    packed: bool = False,
) -> Retrieved:
    """Reads histories and generates the codes of the next item.

    Args:
      model: `Gpt2` or `Tiger`.
      params: its parameters.
      trie: of the catalogue.
      codes: uint8[N + 1, L], the catalogue.
      history: int32[B, T], right padded.
      beam: hypotheses kept.
      k: items returned.
      packed: whether padding is left out where that pays, see `without_padding`; of `Gpt2` alone,
        and not worth compiling where users of like lengths are read together anyway.
    """
    sizes, places = model.config, history.shape[1] * codes.shape[1]

    def serve(history: jax.Array) -> Retrieved:
        mask = history > 0
        start = functools.partial(model.apply, params, codes[history], mask, beam, method="start")
        started = without_padding(lambda rows: start(rows=rows), mask) if packed else start()
        logits, shared, own = started

        def step(own: Any, code: jax.Array, level: int) -> tuple[jax.Array, Any]:
            found: tuple[jax.Array, Any]
            found = model.apply(params, shared, own, code, level, method="step")
            return found

        return beam_search(trie, logits, own, step, beam, k, sizes.constrained)

    each = bytes_touched(places, sizes.width, sizes.heads)
    found: Retrieved = cached_turns(serve, history, each)
    return found


def beam_lists(
    model: Any,
    params: Any,
    trie: Trie,
    codes: jax.Array,
    side: Users,
    config: BeamConfig,
    shows_bar: bool = True,
) -> Lists:
    """Ranked lists of all users; no time is taken, speed belongs to the benchmarks."""

    def encode(part: Users, width: int) -> dict[str, jax.Array]:
        history = part.history[:, :width]
        found = generate(model, params, trie, codes, history, config.beam, config.k)
        return {"items": found.items, "scores": found.scores, "scored": found.scored}

    return Lists(**encode_users(side, encode, shows_bar, POSITIONS))


def items_of(lists: Lists, owner: np.ndarray) -> Lists:
    """Lists of items from lists of IDs: an item's score is the log of its IDs' summed probability.

    Args:
      lists: of IDs.
      owner: int32[V + 1], the item of each ID.

    Returns:
      The same lists, each item once, 0 behind the last.
    """
    items = owner[lists.items]
    if len(np.unique(owner)) == len(owner):
        return dataclasses.replace(lists, items=items)
    same = (items[:, :, None] == items[:, None, :]) & (items > 0)[:, None, :]
    scores = np.where(same, lists.scores[:, None, :].astype(np.float64), -np.inf)
    top = lists.scores.max(axis=1, initial=-np.inf, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        joined = np.log(np.exp(scores - top[..., None]).sum(axis=2)) + top
    first = np.argmax(same, axis=2) == np.arange(items.shape[1])
    joined = np.where(first & (items > 0), joined, -np.inf)
    order = np.argsort(-joined, axis=1, kind="stable")
    joined = np.take_along_axis(joined, order, axis=1)
    items = np.where(np.isfinite(joined), np.take_along_axis(items, order, axis=1), 0)
    return dataclasses.replace(lists, items=items, scores=joined.astype(np.float32))


def evaluate_beam(
    raw: RawDataset,
    features: ItemFeatures,
    ids: StaticIds,
    model: Any,
    params: Any,
    trie: Trie,
    codes: jax.Array,
    config: BeamConfig,
    width: int,
) -> Evaluation:
    """Scores validation and test of all users.

    Without history: what is left of the same lists, so a cutoff near the beam's width is too low.

    Args:
      raw: data set.
      features: normalised features.
      ids: of the catalogue.
      model: `Gpt2` or `Tiger`.
      params: best on validation.
      trie: of the catalogue.
      codes: uint8[N + 1, L].
      config: of the beam.
      width: T.
    """
    metrics: dict[str, Any] = {}

    def told(items: np.ndarray) -> dict[str, float]:
        return list_summary(target_ranks(items, side.targets), config.k)

    for split in ("validation", "test"):
        side = make_users(ids.read(raw.interactions), split, width)
        lists = beam_lists(model, params, trie, codes, side, config)
        lists = items_of(lists, ids.owner)
        owned = ids.owner[side.history], ids.owner[side.targets]
        side = dataclasses.replace(side, history=owned[0], targets=owned[1])
        metrics |= named(split, told(lists.items))
    seen = whole_prefix(raw.interactions, side.users)
    metrics |= named("test_without_history", told(without_seen(lists.items, seen)))
    metrics["search.scored_fraction"] = float(lists.scored.mean()) / raw.interactions.n_items
    metrics |= named("sid", static_health(ids, raw.catalogue.categories))
    metrics |= describe_lists(raw.interactions, features, lists.items)
    return Evaluation(metrics, side, lists)
