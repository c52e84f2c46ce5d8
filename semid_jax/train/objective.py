"""What HDNAG is trained on: all losses of one batch on one device of many."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.fusion import ItemViews, see
from semid_jax.models.hdnag import Generator, item_vector, query_vector
from semid_jax.models.hdnag_losses import (
    LossConfig,
    alignment_loss,
    coarse_loss,
    fake_codes,
    fine_loss,
    item_loss,
    item_scores,
    sample_digits,
    validity_loss,
)
from semid_jax.train.step import Batch, Losses, dropout_seeds


@struct.dataclass
class Codes:
    """What a step reads: the catalogue's IDs and how to sample from it.

    Attributes:
      coarse: int32[A, N + 1].
      fine: uint8[A, N + 1, L].
      log_proposal: float32[N + 1], log probability of each item as a sampled candidate, row 0 -inf.
      views: items as the archetypes see them; only the dense term asks for them.
    """

    coarse: jax.Array
    fine: jax.Array
    log_proposal: jax.Array
    views: ItemViews


def sample_candidates(codes: Codes, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Items for the item-level loss: all of them if there are no more than `count`.

    Args:
      codes: the catalogue.
      key: the same on all devices.
      count: S.

    Returns:
      int32[S] item numbers, with repeats; float32[S] log of their expected number in the sample.
    """
    n_items = codes.log_proposal.shape[0] - 1
    if n_items <= count:
        return jnp.arange(1, n_items + 1), jnp.zeros(n_items)
    cdf = jnp.cumsum(jnp.exp(codes.log_proposal))
    drawn = jnp.searchsorted(cdf, jax.random.uniform(key, (count,)) * cdf[-1], side="right")
    drawn = jnp.clip(drawn, 1, n_items)
    return drawn, codes.log_proposal[drawn] + jnp.log(float(count))


def group_losses(
    generator: Generator,
    config: LossConfig,
    group: int,
    seed: int,
    params: Any,
    codes: Codes,
    batch: Batch,
    step: jax.Array,
) -> dict[str, jax.Array]:
    """Sums of all losses over the loss-bearing positions of this device, and their number.

    Args:
      generator: module.
      config: weights.
      group: rows of a batch that share an archetype.
      seed: of the run.
      params: of the generator.
      codes: the catalogue.
      batch: inputs, targets int32[B, T], archetype int32[B], example uint32[B].
      step: int32[], for dropout and sampling.

    Returns:
      "count" and one sum per loss, float32[] each.
    """
    inputs, targets, archetype = batch["inputs"], batch["targets"], batch["archetype"]
    B, T = inputs.shape
    G = B // group
    column = archetype[:, None]
    seeds = dropout_seeds(batch, seed, step)
    states, coarse_query, fine_query, weight, tables = generator.apply(
        params, codes.coarse[column, inputs], codes.fine[column, inputs], inputs, seeds
    )

    def by_group(a: jax.Array) -> jax.Array:
        return a.reshape(G, group * T, *a.shape[2:])

    bears = by_group((targets > 0).astype(jnp.float32))
    target_coarse = codes.coarse[column, targets]
    target_fine = codes.fine[column, targets]
    coarse_logits = by_group(coarse_query @ tables.coarse.T)
    cell = by_group(target_coarse)

    key = jax.random.fold_in(jax.random.key(seed), step)
    sample_key, fake_key, digit_key = jax.random.split(key, 3)
    items, log_count = sample_candidates(codes, sample_key, config.candidates)
    rows = archetype[::group]
    candidate_coarse, candidate_fine = codes.coarse[rows][:, items], codes.fine[rows][:, items]
    query = by_group(query_vector(coarse_query, fine_query, weight))
    target_score, scores = item_scores(
        query,
        by_group(item_vector(tables, target_coarse, target_fine)),
        item_vector(tables, candidate_coarse, candidate_fine),
    )
    hit = by_group(targets)[..., None] == items
    scores = jnp.where(hit, -1e9, scores - log_count)
    item_sum, log_total = item_loss(target_score, scores, bears)
    dense = {}
    if generator.has_dense:
        own, others = item_scores(
            by_group(states),
            by_group(dense_vectors(generator, params, codes.views, column, targets)),
            dense_vectors(generator, params, codes.views, rows[:, None], items),
        )
        dense["dense_loss"] = item_loss(target_score + own, scores + others, bears)[0]
    digits = sample_digits(digit_key, target_fine.shape[-1], config.fine_digits)
    fakes = fake_codes(fake_key, candidate_coarse, candidate_fine, config.fakes)
    return {
        "count": jnp.sum(bears),
        "coarse_loss": coarse_loss(coarse_logits, cell, bears),
        "fine_loss": fine_loss(
            by_group(fine_query), tables, cell, by_group(target_fine), bears, digits
        ),
        "item_loss": item_sum,
        "alignment_loss": alignment_loss(
            coarse_logits, target_score, scores, log_total, cell, candidate_coarse, bears
        ),
        "validity_loss": validity_loss(query, item_vector(tables, *fakes), log_total, bears),
        **dense,
    }


def dense_vectors(
    generator: Generator, params: Any, views: ItemViews, archetype: jax.Array, items: jax.Array
) -> jax.Array:
    """y of items as archetypes see them: int32[..., 1] and int32[..., n] to float32[..., n, D]."""
    z = see(views, archetype, items)
    y: jax.Array = generator.apply(params, z, items, method=Generator.dense_vectors)
    return y


def hdnag_losses(generator: Generator, config: LossConfig, group: int, seed: int) -> Losses:
    """The losses of HDNAG for `make_step`.

    Args:
      generator: module.
      config: weights.
      group: rows that share an archetype.
      seed: of dropout and sampling.
    """
    weights = {
        "coarse_loss": config.coarse,
        "fine_loss": config.fine,
        "item_loss": config.item,
        "alignment_loss": config.alignment,
        "validity_loss": config.validity,
    }
    if generator.has_dense:
        weights["dense_loss"] = config.dense
    return Losses(functools.partial(group_losses, generator, config, group, seed), weights)
