"""What HDNAG is trained on: all losses of one batch on one device of many."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.codes import Centroids, CodeVectors, meaning
from semid_jax.models.fusion import ItemViews, Rows, ask, parts, see
from semid_jax.models.hdnag import Generator, interests
from semid_jax.models.hdnag_losses import (
    NEVER,
    Asked,
    Candidates,
    Dense,
    Fixed,
    Known,
    LossConfig,
    Past,
    coarse_loss,
    fake_codes,
    fine_loss,
    item_losses,
    sample_digits,
)
from semid_jax.models.linear import multiply
from semid_jax.train.proposal import Proposal, draw_items
from semid_jax.train.step import Batch, Chance, Losses


@struct.dataclass
class Codes:
    """What a step reads: the catalogue's IDs and how to sample from it.

    What an archetype sees of an item is computed where it is asked: tables of it would be A times
    as large as those of the items.

    Attributes:
      coarse: int32[A, N + 1].
      fine: uint8[A, N + 1, L].
      proposal: what candidates are drawn from.
      popularity: float32[N + 1], pop of each item.
      views: what it takes to see an item as an archetype does.
      centroids: what any code stands for.
    """

    coarse: jax.Array
    fine: jax.Array
    proposal: Proposal
    popularity: jax.Array
    views: ItemViews
    centroids: Centroids


def sample_candidates(codes: Codes, key: jax.Array, count: int) -> Candidates:
    """Items for the item-level losses: all of them if there are no more than `count`.

    Args:
      codes: the catalogue.
      key: the same on all devices.
      count: S.
    """
    n_items = len(codes.proposal.log_p) - 1
    if n_items <= count:
        return Candidates(jnp.arange(1, n_items + 1), jnp.zeros(n_items))
    ids = jnp.sort(draw_items(codes.proposal, key, count))
    first = jnp.searchsorted(ids, ids, side="left")
    times = jnp.searchsorted(ids, ids, side="right") - first
    log_count = codes.proposal.log_p[ids] + jnp.log(float(count)) - jnp.log(times)
    return Candidates(ids, jnp.where(first == jnp.arange(count), log_count, NEVER))


def seen_so_far(inputs: jax.Array) -> jax.Array:
    """The items up to each place, each once: int32[B, T] to int32[B, T, T], the rest 0."""
    places = jnp.arange(inputs.shape[1])
    earlier = places[:, None] > places
    repeats = jnp.any((inputs[:, :, None] == inputs[:, None, :]) & earlier, axis=2)
    once = jnp.where(repeats, 0, inputs)
    return jnp.where(places[:, None] >= places, once[:, None, :], 0)


@dataclasses.dataclass(frozen=True)
class Bound:
    """A generator with its parameters over a catalogue: what the losses call.

    Attributes:
      generator: module.
      params: of the generator.
      codes: the catalogue.
    """

    generator: Generator
    params: Any
    codes: Codes

    def __call__(self, *arguments: Any, method: Callable[..., Any]) -> Any:
        """One method of the generator."""
        return self.generator.apply(self.params, *arguments, method=method)

    def code_vectors(self, column: jax.Array, items: Rows) -> CodeVectors:
        """Items in columns int32[...] as S1 meets them."""
        read = self.codes.coarse[column, items], self.codes.fine[column, items]
        return self._vectors(*read, self.codes.popularity[items])

    def fake_vectors(self, coarse: jax.Array, fine: jax.Array) -> CodeVectors:
        """Codes int32[V], uint8[V, L] that no item has, as S1 meets them."""
        return self._vectors(coarse, fine, jnp.zeros(len(coarse)))

    def _vectors(self, coarse: jax.Array, fine: jax.Array, popularity: jax.Array) -> CodeVectors:
        asked = coarse, fine, meaning(self.codes.centroids, coarse, fine), popularity
        made: CodeVectors = self(*asked, method=Generator.code_vectors)
        return made

    def dense_vectors(self, column: jax.Array, items: Rows) -> jax.Array:
        """y of items in columns int32[...], float32[..., D]."""
        z = see(self.codes.views, column, items)
        made: jax.Array = self(z, items, method=Generator.dense_vectors)
        return made


def group_losses(
    generator: Generator,
    config: LossConfig,
    group: int,
    params: Any,
    codes: Codes,
    batch: Batch,
    chance: Chance,
) -> dict[str, jax.Array]:
    """Sums of all losses over the loss-bearing positions of this device, and their number.

    Args:
      generator: module.
      config: weights.
      group: rows of a batch that share an archetype.
      params: of the generator.
      codes: the catalogue.
      batch: inputs, targets int32[B, T], archetype int32[B], example uint32[B], and belief
        float16[B, T, M, K] if the model reads it.
      chance: for dropout and sampling.

    Returns:
      "count" and one sum per loss, float32[] each.
    """
    call = Bound(generator, params, codes)
    inputs, targets, column = batch["inputs"], batch["targets"], batch["archetype"][:, None]
    sample_key, fake_key, digit_key = jax.random.split(chance.key(), 3)

    z = see(codes.views, column, inputs)
    read = codes.coarse[column, inputs], codes.fine[column, inputs]
    x = call(*read, z, inputs, method=Generator.read)
    states = call(x, inputs > 0, chance.dropout_seeds(batch), method=Generator.states)
    interest = _interest(call, batch, z)
    coarse_query, fine_query = call(codes.centroids, states, interest, method=Generator.query)
    tables = call(codes.centroids, method=Generator.tables)
    coarse_logits = multiply(coarse_query, tables.coarse.T) / params["params"]["coarse_weight"]

    asked, known = _positions(call, batch, states, interest, coarse_logits)
    bears = (targets > 0).astype(jnp.float32)
    candidates = sample_candidates(codes, sample_key, config.candidates)
    of_group = functools.partial(_group, call, config, candidates, fake_key)
    B, T = inputs.shape

    def grouped(a: jax.Array) -> jax.Array:
        return a.reshape(B // group, group * T, *a.shape[2:])

    groups = jax.tree.map(grouped, (asked, known, bears))
    by_group = jax.lax.map(of_group, (batch["archetype"][::group], *groups))

    def flat(a: jax.Array) -> jax.Array:
        return a.reshape(B * T, *a.shape[2:])

    true = flat(known.cell), flat(codes.fine[column, targets]), flat(bears)
    digits = sample_digits(digit_key, generator.digits, config.fine_digits)
    return {
        "count": jnp.sum(bears),
        "coarse_loss": coarse_loss(coarse_logits, known.cell, bears),
        "fine_loss": fine_loss(flat(fine_query), tables, *true, digits),
        **jax.tree.map(lambda a: jnp.sum(a, axis=0), by_group),
    }


def _interest(call: Bound, batch: Batch, z: jax.Array) -> jax.Array:
    """p, float32[B, T, D_z], of histories whose items are z float32[B, T, D_z]."""
    if not call.generator.config.belief:
        return interests(z, call.generator.config.fading)
    views = call.codes.views
    return ask(batch["belief"], views.archetypes.alpha[batch["archetype"][:, None]], views.table)


def _positions(
    call: Bound, batch: Batch, states: jax.Array, interest: jax.Array, coarse_logits: jax.Array
) -> tuple[Asked, Known]:
    """The positions of a batch, [B, T, ...], as the item-level losses look at them."""
    inputs, targets, column = batch["inputs"], batch["targets"], batch["archetype"][:, None]
    own_y, past = None, None
    if call.generator.has_dense:
        taste = interests(call.codes.views.e(inputs), call.generator.config.fading)
        own_parts = parts(call.codes.views, column, targets)
        own_likeness = jnp.einsum("btmd,btmd->btm", taste, own_parts)
        own_y = call.dense_vectors(column, targets)
        past = Past(taste, own_likeness, seen_so_far(inputs))
    asked = Asked(states, call.code_vectors(column, targets), coarse_logits, own_y)
    return asked, Known(targets, call.codes.coarse[column, targets], interest, past)


def _group(
    call: Bound,
    config: LossConfig,
    candidates: Candidates,
    fake_key: jax.Array,
    group: tuple[jax.Array, Asked, Known, jax.Array],
) -> dict[str, jax.Array]:
    """Item-level losses of one group: its archetype int32[], positions [n, ...], their weight."""
    archetype, asked, known, weight = group
    codes = call.codes
    # All rows but the first are cut out of a table much faster than they are looked up.
    everything = len(candidates.ids) == len(codes.proposal.log_p) - 1
    rows: Rows = slice(1, None) if everything else candidates.ids
    coarse, fine = codes.coarse[archetype, rows], codes.fine[archetype, rows]
    likened, dense = None, None
    if call.generator.has_dense:
        likened = parts(codes.views, archetype, rows)
        dense = Dense(
            call.dense_vectors(archetype, rows),
            call(method=Generator.likeness_by),
            call(method=Generator.repeat),
        )
    total, reported = item_losses(
        config,
        Fixed(candidates, jax.nn.one_hot(coarse, call.generator.cells), likened),
        call.code_vectors(archetype, rows),
        call.fake_vectors(*fake_codes(fake_key, coarse, fine, config.fakes)),
        dense,
        asked,
        known,
        weight,
    )
    return {"item_losses": total, **reported}


def hdnag_losses(generator: Generator, config: LossConfig, group: int) -> Losses:
    """The losses of HDNAG for `make_step`.

    Args:
      generator: module.
      config: weights.
      group: rows that share an archetype.
    """
    # What reads the same scores is one loss, weighted inside; its parts are only reported.
    weights = {"coarse_loss": config.coarse, "fine_loss": config.fine, "item_losses": 1.0}
    return Losses(functools.partial(group_losses, generator, config, group), weights)
