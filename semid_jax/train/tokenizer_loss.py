"""What PMAT is taught on a batch of histories (design part 3.5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.data.sequences import popularity
from semid_jax.models.encoders import encode, unit
from semid_jax.models.fusion import fuse
from semid_jax.models.memory import Memory, sum_before
from semid_jax.models.perceiver import (
    Latents,
    Preference,
    evidence,
    first_prior,
    over_users,
    posterior,
    read_items,
    without_weights,
)
from semid_jax.models.pmat import Pmat, find_owners
from semid_jax.models.pmat_losses import balance_loss, contrast, next_item_loss
from semid_jax.train.proposal import Proposal, draw_items, make_proposal
from semid_jax.types import Interactions, ItemFeatures

PAIRS = 256  # items whose consistency is looked at, at most


@struct.dataclass
class Inputs:
    """What every tokenizer step reads.

    Attributes:
      e: float32[N + 1, M, D], encoded items.
      mask: bool[N + 1, M].
      log_popularity: float32[N + 1].
      owner: int32[N + 1], see `find_owners`.
      proposal: what candidates are drawn from.
    """

    e: jax.Array
    mask: jax.Array
    log_popularity: jax.Array
    owner: jax.Array
    proposal: Proposal


def make_inputs(features: ItemFeatures, interactions: Interactions, width: int) -> Inputs:
    """Puts the items on the device."""
    counts = popularity(interactions)
    return Inputs(
        e=encode(features.x, features.present, width),
        mask=jnp.asarray(features.mask),
        log_popularity=jnp.asarray(np.log(counts + 1.0), jnp.float32),
        owner=jnp.asarray(find_owners(counts)),
        proposal=make_proposal(counts),
    )


@struct.dataclass
class Windows:
    """Windows of histories, in which what is computed of an item is computed once.

    Attributes:
      items: int32[U], a 0, then distinct items, filled up with 0.
      place: int32[B, T], where in `items` each position's item stands; 0 past the end.
    """

    items: jax.Array | np.ndarray
    place: jax.Array | np.ndarray


def make_windows(history: np.ndarray, room: int = 0) -> Windows:
    """Names the items of a batch.

    U is half of what B histories can hold, or a quarter, and so on, if that leaves room for a
    quarter more items than there are: few sizes, so that few programs are compiled.

    Args:
      history: int32[B, T], right-padded with 0.
      room: U of the batch before; it is kept unless it is too small.
    """
    items, place = np.unique(np.append(0, history), return_inverse=True)
    if len(items) > room:
        room = history.size + 1
        while 1.25 * len(items) < room // 2:
            room //= 2
    place = place[1:].reshape(history.shape).astype(np.int32)
    return Windows(np.pad(items, (0, room - len(items))).astype(np.int32), place)


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
    item = draw_items(inputs.proposal, key, count)
    log_count = inputs.proposal.log_p[item] + jnp.log(float(count))
    return Candidates(
        item, inputs.e[item], inputs.mask[item], log_count, inputs.log_popularity[item]
    )


def draw_positions(
    is_item: jax.Array | np.ndarray, count: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Places of the histories that bear loss: one from each of P even parts of a history.

    Args:
      is_item: bool[B, T], False past the end.
      count: P, of each history; one of fewer places gives all of them, about as often.
      key: draws them.

    Returns:
      int32[B, P], places whose items are to be foreseen, in their order; float32[B * P], 0 where
      there are none.
    """
    length = jnp.sum(is_item, axis=1, keepdims=True)
    u = (jnp.arange(count) + jax.random.uniform(key, (len(is_item), count))) / count
    position = (1 + u * jnp.maximum(length - 1, 1)).astype(jnp.int32)
    position = jnp.minimum(position, jnp.maximum(length - 1, 0))
    return position, ((length > 1) & (position > 0)).astype(jnp.float32).reshape(-1)


@struct.dataclass
class Aim:
    """What is to be foreseen at n = B P positions.

    Attributes:
      item: int32[n], true next items.
      e: float32[n, M, D], of them.
      mask: bool[n, M].
      base: float32[n], what popularity says of them.
      crowd_base: float32[S], what it says of the candidates.
      weight: float32[n], 0 where there is nothing to foresee.
    """

    item: jax.Array
    e: jax.Array
    mask: jax.Array
    base: jax.Array
    crowd_base: jax.Array
    weight: jax.Array

    def loss(self, crowd: Candidates, own: jax.Array, scores: jax.Array) -> jax.Array:
        """Cross-entropy of scores float32[n], and float32[n, S] of the candidates."""
        hit = self.item[:, None] == crowd.item
        own, scores = own + self.base, scores + self.crowd_base
        return next_item_loss(own, scores, crowd.log_count, hit, self.weight)


def tokenizer_loss(
    module: Pmat, params: Any, inputs: Inputs, windows: Windows, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """All losses of PMAT on a batch of histories.

    Args:
      module: PMAT.
      params: its parameters.
      inputs: items and proposal.
      windows: of B histories.
      key: draws positions, candidates and pairs.

    Returns:
      The weighted sum and its parts.
    """
    config, place, B = module.config, windows.place, len(windows.place)
    P = config.positions
    position_key, candidate_key, *pair_keys = jax.random.split(key, 4)
    crowd = draw_candidates(inputs, config.candidates, candidate_key)
    position, weight = draw_positions(place > 0, P, position_key)

    def flat(a: jax.Array) -> jax.Array:
        return a.reshape(B * P, *a.shape[2:])

    latents: Latents = module.apply(
        params, crowd.e, crowd.mask, crowd.log_popularity, crowd.log_count, method=Pmat.latents
    )
    if config.uniform:
        latents = without_weights(latents)

    @over_users
    def prefer(memory: Memory) -> Preference:
        prior = first_prior(latents)
        found = posterior(latents, prior, evidence(latents, prior, memory)[0])
        return same_for_all(found) if config.uniform else found

    e, mask = inputs.e[windows.items], inputs.mask[windows.items]
    memory = Memory(read_items(latents, e, mask)[place], mask[place].astype(jnp.float32))
    long, short = jax.tree.map(flat, sum_before(memory, position, config.window))
    preference = prefer(long)
    target = flat(jnp.take_along_axis(place, position, axis=1))
    item = windows.items[target]
    aim = Aim(
        item=item,
        e=e[target],
        mask=mask[target],
        base=module.apply(params, inputs.log_popularity[item], method=Pmat.log_base),
        crowd_base=module.apply(params, crowd.log_popularity, method=Pmat.log_base),
        weight=weight,
    )
    perceived = _perceived_loss(module, params, latents, crowd, preference, aim)

    # What z is made of learns from what the perceiver says; next items by z tell it nothing, the
    # consistency of z and the balance of alpha do.
    held, aim = jax.lax.stop_gradient((preference, aim))
    crowd_h = module.apply(params, crowd.e, inputs.owner[crowd.item], method=Pmat.refine)
    h = module.apply(params, e, inputs.owner[windows.items], method=Pmat.refine)
    target_h = h[target]
    query, taste = module.apply(params, held, latents.taste, method=Pmat.refined_query)
    refined = _refined_loss(query, held, crowd, crowd_h, target_h, aim)
    before = mean_before(h[place], mask[place], position, config.window)
    query = module.apply(params, *map(flat, before), held, method=Pmat.pooled_query)
    pooled = _refined_loss(query, held, crowd, crowd_h, target_h, aim)

    n = min(config.candidates, PAIRS)
    first, second = (jax.random.randint(k, (n,), 0, B * P) for k in pair_keys)
    now = jnp.arange(B) * P + (P - 1)
    rows = jnp.concatenate([first, now])
    recent = prefer(jax.tree.map(lambda a: a[rows], short))
    see = functools.partial(_see, module, params)
    consistency = _item_consistency(see, crowd, crowd_h, preference, recent, first, second)
    side = see(
        target_h.reshape(B, P, *target_h.shape[1:]),
        aim.mask.reshape(B, P, -1),
        jax.tree.map(lambda a: a[n:, None], recent),
    )
    # The updated read side stays closer to its user's long-term interest than to other users'.
    consistency += contrast(jnp.mean(unit(side), axis=1), taste[now])
    balance = balance_loss(preference.alpha, weight)
    parts = {
        "next_item_loss": perceived,
        "refined_loss": refined,
        "pooled_loss": pooled,
        "consistency_loss": consistency,
        "balance_loss": balance,
    }
    total = perceived + refined + config.pooled * pooled
    total += config.consistency * consistency + config.balance * balance
    return total, parts


def same_for_all(preference: Preference) -> Preference:
    """The same beliefs of users who all have equal weights; the grid may have no such point."""
    alpha = preference.alpha
    return dataclasses.replace(preference, alpha=jnp.full_like(alpha, 1 / alpha.shape[-1]))


def _perceived_loss(
    module: Pmat,
    params: Any,
    latents: Latents,
    crowd: Candidates,
    preference: Preference,
    aim: Aim,
) -> jax.Array:
    """Next items by what the perceiver believes of their users, on e."""
    query = module.apply(params, preference, method=Pmat.query)
    centred = (crowd.e - latents.mean) * crowd.mask[..., None]
    scores = query.reshape(len(query), -1) @ centred.reshape(len(centred), -1).T
    own = jnp.sum(query * (aim.e - latents.mean) * aim.mask[..., None], axis=(1, 2))
    return aim.loss(crowd, own, scores)


def _refined_loss(
    query: jax.Array,
    held: Preference,
    crowd: Candidates,
    crowd_h: jax.Array,
    target_h: jax.Array,
    aim: Aim,
) -> jax.Array:
    """Next items by <p, z>, z being made of h as the users' own weights fuse it."""
    has = held.alpha @ crowd.mask.T.astype(jnp.float32)
    scores = query.reshape(len(query), -1) @ crowd_h.reshape(len(crowd_h), -1).T
    own_has = jnp.sum(held.alpha * aim.mask, axis=1)
    own = jnp.sum(query * target_h, axis=(1, 2))
    return aim.loss(crowd, own / jnp.maximum(own_has, 1e-3), scores / jnp.maximum(has, 1e-3))


def mean_before(
    h: jax.Array, mask: jax.Array, position: jax.Array, window: int
) -> tuple[jax.Array, jax.Array]:
    """Mean h of the last W items before some positions, and whether any of them has the modality.

    Args:
      h: float32[B, T, M, D].
      mask: bool[B, T, M].
      position: int32[B, P].
      window: W.

    Returns:
      float32[B, P, M, D] and bool[B, P, M].
    """
    has = mask.astype(jnp.float32)
    _, lately = sum_before(Memory(h * has[..., None], has), position, window)
    return lately.sums / jnp.maximum(lately.count, 1.0)[..., None], lately.count > 0


def _see(module: Pmat, params: Any, h: jax.Array, mask: jax.Array, who: Preference) -> jax.Array:
    """z of items h float32[..., M, D] with masks bool[..., M] as users see them."""
    gate = module.apply(params, who.interest, method=Pmat.gate)
    return fuse(h, mask, who.alpha, gate)


def _item_consistency(
    see: Callable[..., jax.Array],
    crowd: Candidates,
    crowd_h: jax.Array,
    preference: Preference,
    recent: Preference,
    first: jax.Array,
    second: jax.Array,
) -> jax.Array:
    """One item under two users, and under one user's long and short weights.

    Args:
      see: `_see` of the parameters.
      crowd: candidates, of which the first n are looked at.
      crowd_h: float32[S, M, D], theirs.
      preference: at all positions.
      recent: of the last W items, at the positions `first`, then others.
      first: int32[n], positions.
      second: int32[n], others.
    """
    n = len(first)
    item = crowd_h[:n], crowd.mask[:n]
    z = see(*item, jax.tree.map(lambda a: a[first], preference))
    of_other = see(*item, jax.tree.map(lambda a: a[second], preference))
    of_recent = see(*item, jax.tree.map(lambda a: a[:n], recent))
    return contrast(z, of_other) + contrast(z, of_recent)
