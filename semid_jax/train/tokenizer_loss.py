"""What PMAT is taught on a batch of histories (design part 3.5)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.data.sequences import log_proposal, popularity
from semid_jax.models.encoders import encode, unit
from semid_jax.models.fusion import fuse
from semid_jax.models.memory import Memory, prefixes
from semid_jax.models.perceiver import (
    Latents,
    Preference,
    evidence,
    first_prior,
    over_users,
    posterior,
    read_items,
)
from semid_jax.models.pmat import Pmat
from semid_jax.models.pmat_losses import balance_loss, contrast, next_item_loss
from semid_jax.types import Interactions, ItemFeatures


@struct.dataclass
class Inputs:
    """What every tokenizer step reads.

    Attributes:
      e: float32[N + 1, M, D], encoded items.
      mask: bool[N + 1, M].
      log_popularity: float32[N + 1].
      cdf: float32[N + 1], of the proposal that candidates are drawn from.
      log_proposal: float32[N + 1].
    """

    e: jax.Array
    mask: jax.Array
    log_popularity: jax.Array
    cdf: jax.Array
    log_proposal: jax.Array


def make_inputs(features: ItemFeatures, interactions: Interactions, width: int) -> Inputs:
    """Puts the items on the device, with a proposal half popular, half uniform."""
    counts = popularity(interactions)
    proposal = log_proposal(counts)
    return Inputs(
        e=encode(features.x, features.present, width),
        mask=jnp.asarray(features.mask),
        log_popularity=jnp.asarray(np.log(counts + 1.0), jnp.float32),
        cdf=jnp.asarray(np.cumsum(np.exp(proposal))),
        log_proposal=jnp.asarray(proposal),
    )


@struct.dataclass
class Candidates:
    """Items that true next items are told from, and that stand for the crowd.

    Attributes:
      item: int32[S].
      e: float32[S, M, D].
      mask: bool[S, M].
      log_count: float32[S], log expected count of each in such a sample.
      log_popularity: float32[S].
    """

    item: jax.Array
    e: jax.Array
    mask: jax.Array
    log_count: jax.Array
    log_popularity: jax.Array


def draw_candidates(inputs: Inputs, count: int, key: jax.Array) -> Candidates:
    """Draws items from the proposal, with replacement."""
    drawn = jax.random.uniform(key, (count,)) * inputs.cdf[-1]
    item = jnp.clip(jnp.searchsorted(inputs.cdf, drawn, side="right"), 1, None)
    item = jnp.minimum(item, inputs.cdf.shape[0] - 1)
    log_count = inputs.log_proposal[item] + jnp.log(float(count))
    return Candidates(
        item, inputs.e[item], inputs.mask[item], log_count, inputs.log_popularity[item]
    )


def draw_positions(history: jax.Array, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Places of the histories that bear loss.

    Args:
      history: int32[B, T], right-padded.
      count: P, of each history.
      key: draws them.

    Returns:
      int32[B, P], places whose items are to be foreseen; float32[B * P], 0 where there are none.
    """
    length = jnp.sum(history > 0, axis=1, keepdims=True)
    u = jax.random.uniform(key, (len(history), count))
    position = (1 + u * jnp.maximum(length - 1, 1)).astype(jnp.int32)
    position = jnp.minimum(position, jnp.maximum(length - 1, 0))
    return position, ((length > 1) & (position > 0)).astype(jnp.float32).reshape(-1)


def tokenizer_loss(
    module: Pmat, params: Any, inputs: Inputs, history: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """All losses of PMAT on a batch of histories.

    Args:
      module: PMAT.
      params: its parameters.
      inputs: items and proposal.
      history: int32[B, T], right-padded windows.
      key: draws positions, candidates and pairs.

    Returns:
      The weighted sum and its parts.
    """
    config, B = module.config, len(history)
    P = config.positions
    position_key, candidate_key, user_key, other_key = jax.random.split(key, 4)
    crowd = draw_candidates(inputs, config.candidates, candidate_key)
    position, weight = draw_positions(history, P, position_key)
    row = jnp.arange(B)[:, None]

    def at_positions(a: jax.Array) -> jax.Array:
        return a[row, position].reshape(B * P, *a.shape[2:])

    latents: Latents = module.apply(
        params, crowd.e, crowd.mask, crowd.log_popularity, crowd.log_count, method=Pmat.latents
    )

    @over_users
    def prefer(memory: Memory) -> Preference:
        prior = first_prior(latents)
        return posterior(latents, prior, evidence(latents, prior, memory)[0])

    read = read_items(latents, inputs.e[history], inputs.mask[history])
    memory = prefixes(Memory(read, inputs.mask[history].astype(jnp.float32)), config.window)
    long, short = jax.tree.map(at_positions, memory)
    preference = prefer(long)

    target = at_positions(history)
    target_e, target_mask = inputs.e[target], inputs.mask[target]
    hit = target[:, None] == crowd.item
    base = module.apply(params, crowd.log_popularity, method=Pmat.log_base)
    target_base = module.apply(params, inputs.log_popularity[target], method=Pmat.log_base)
    query = module.apply(params, preference, method=Pmat.query)
    centred = (crowd.e - latents.mean) * crowd.mask[..., None]
    scores = query.reshape(B * P, -1) @ centred.reshape(len(centred), -1).T + base
    own = jnp.sum(query * (target_e - latents.mean) * target_mask[..., None], axis=(1, 2))
    perceived = next_item_loss(own + target_base, scores, crowd.log_count, hit, weight)

    # What z is made of learns from what the perceiver says, and tells it nothing.
    held, base, target_base = jax.lax.stop_gradient((preference, base, target_base))
    crowd_h = module.apply(params, crowd.e, method=Pmat.refine)
    history_h = module.apply(params, inputs.e[history], method=Pmat.refine)
    target_h = at_positions(history_h)
    query, taste = module.apply(params, held, latents.taste, method=Pmat.refined_query)
    has = held.alpha @ crowd.mask.T.astype(jnp.float32)
    scores = query.reshape(B * P, -1) @ crowd_h.reshape(len(crowd_h), -1).T
    scores = scores / jnp.maximum(has, 1e-3) + base
    has = jnp.sum(held.alpha * target_mask, axis=1)
    own = jnp.sum(query * target_h, axis=(1, 2)) / jnp.maximum(has, 1e-3)
    refined = next_item_loss(own + target_base, scores, crowd.log_count, hit, weight)

    # Consistency: one item under two users, and under one user's long and short weights.
    n = min(config.candidates, 256)
    first = jax.random.randint(user_key, (n,), 0, B * P)
    second = jax.random.randint(other_key, (n,), 0, B * P)
    now = jnp.arange(B) * P + (P - 1)
    rows = jnp.concatenate([first, now])
    recent = prefer(jax.tree.map(lambda a: a[rows], short))

    def seen_by(who: Preference, users: jax.Array) -> jax.Array:
        gate = module.apply(params, who.interest[users], method=Pmat.gate)
        return fuse(crowd_h[:n], crowd.mask[:n], who.alpha[users], gate)

    z = seen_by(preference, first)
    consistency = contrast(z, seen_by(preference, second))
    consistency += contrast(z, seen_by(recent, jnp.arange(n)))
    # The updated read side stays closer to its user's long-term interest than to other users'.
    window_h = target_h.reshape(B, P, *target_h.shape[1:])
    window_mask = target_mask.reshape(B, P, -1)
    read_gate = module.apply(params, recent.interest[n:], method=Pmat.gate)
    side = fuse(window_h, window_mask, recent.alpha[n:, None], read_gate[:, None])
    consistency += contrast(jnp.mean(unit(side), axis=1), taste[now])
    balance = balance_loss(preference.alpha, weight)
    parts = {
        "next_item_loss": perceived,
        "refined_loss": refined,
        "consistency_loss": consistency,
        "balance_loss": balance,
    }
    total = perceived + refined + config.consistency * consistency + config.balance * balance
    return total, parts
