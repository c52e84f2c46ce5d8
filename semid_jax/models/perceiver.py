"""What a history says about its user: latent tastes that read it, and the posterior they imply.

Each modality has K latent vectors, the tastes its crowd has (the latent array of a perceiver,
Jaegle et al. 2021). A user with weights alpha over the modalities and one taste k_m in each chooses
item i with

    p(i) ~ pop_i^gamma exp(kappa sum_m alpha_m r[i, m, k_m]) ,

r[i, m, k] = <v[m, k], e[i, m] - mean> being the readings, of unit variance over the crowd. So a
history enters by the sum of its readings and its length alone, and the posterior of alpha, on an
even grid of the simplex, and of the tastes is a few small tables away. Modalities are normalised
one by one; what a weight on one of them does to the readings of another (their covariance over
items) is taken off the sums in a step of mean field. Design part 3.2 has coherence instead;
BUILD_NOTES.md says why this replaced it.

Functions are of one user; `over_users` makes them functions of many.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from semid_jax.models.encoders import unit
from semid_jax.models.memory import Memory

POINTS = 66  # of the grid of weights, at most
DIVISIONS = 12  # of the simplex's edge, at most
NEVER = -1e9


@functools.cache
def simplex(modalities: int) -> tuple[np.ndarray, np.ndarray, int]:
    """An even grid of weights.

    Args:
      modalities: M.

    Returns:
      float32[G, M], points (level + 1 / M) / S of the simplex; int32[G, M], their levels; S, how
      many levels there are.
    """
    fits = (s for s in range(DIVISIONS, 1, -1) if math.comb(s + modalities - 2, s - 1) <= POINTS)
    levels = 1 if modalities == 1 else next(fits, 2)
    counts = np.indices((levels,) * modalities).reshape(modalities, -1).T
    counts = counts[counts.sum(axis=1) == levels - 1].astype(np.int32)
    return ((counts + 1 / modalities) / levels).astype(np.float32), counts, levels


@struct.dataclass
class Latents:
    """Tastes, and how choices follow from them.

    Attributes:
      taste: float32[M, K, D], v, scaled so that readings have variance one over the crowd.
      mean: float32[M, D], the crowd's mean of e.
      strength: float32[S], kappa times the levels of a weight.
      log_z: float32[S, M, K], log of the crowd's mean of exp(strength * reading).
      cross: float32[M, K, M, K], the crowd's covariance of readings of different modalities.
      log_weights: float32[G], prior of alpha.
      log_tastes: float32[M, K], prior of the tastes.
    """

    taste: jax.Array
    mean: jax.Array
    strength: jax.Array
    log_z: jax.Array
    cross: jax.Array
    log_weights: jax.Array
    log_tastes: jax.Array


@struct.dataclass
class Prior:
    """What is believed of a user before the items in its memory.

    Attributes:
      log_weights: float32[G], of alpha.
      log_tastes: float32[M, K].
    """

    log_weights: jax.Array
    log_tastes: jax.Array


@struct.dataclass
class Preference:
    """What a history says about its user.

    Attributes:
      alpha: float32[M], posterior mean of the weights.
      query: float32[M, D], posterior mean of kappa alpha_m v[m, k_m]: how an item's score
        grows with its e.
      interest: float32[D], sum of the directions of `query`, weighted by alpha.
      belief: float32[M, K], E[kappa alpha_m, k_m is k]; `query` is its product with v.
    """

    alpha: jax.Array
    query: jax.Array
    interest: jax.Array
    belief: jax.Array


def fit_latents(
    taste: jax.Array,
    log_strength: jax.Array,
    prior: Prior,
    e: jax.Array,
    mask: jax.Array,
    log_weight: jax.Array,
) -> Latents:
    """Normalises tastes by a crowd.

    Args:
      taste: float32[M, K, D], directions; their length does not matter.
      log_strength: float32[], log kappa.
      prior: unnormalised, log_weights float32[G] and log_tastes float32[M, K].
      e: float32[n, M, D] of items that stand for the crowd's choices.
      mask: bool[n, M].
      log_weight: float32[n], log of how often each is chosen, up to a constant.
    """
    each = jax.nn.log_softmax(jnp.where(mask, log_weight[:, None], NEVER), axis=0)  # [n, M]
    share = jnp.exp(each) * mask
    mean = jnp.einsum("nm,nmd->md", share, e)
    centred = (e - mean) * mask[..., None]
    raw = jnp.einsum("nmd,mkd->nmk", centred, taste)
    scale = jax.lax.rsqrt(jnp.einsum("nm,nmk->mk", share, raw**2) + 1e-8)
    reading = raw * scale
    _, _, levels = simplex(e.shape[1])
    strength = jnp.exp(log_strength) * (jnp.arange(levels) + 1 / e.shape[1]) / levels

    def log_z(s: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(each[..., None] + s * reading, axis=0)

    weighted = reading * jax.nn.softmax(log_weight)[:, None, None]
    cross = jnp.einsum("nmk,nlj->mklj", weighted, reading)
    other = 1.0 - jnp.eye(e.shape[1])
    return Latents(
        taste * scale[..., None],
        mean,
        strength,
        jax.lax.map(log_z, strength),
        cross * other[:, None, :, None],
        jax.nn.log_softmax(prior.log_weights),
        jax.nn.log_softmax(prior.log_tastes),
    )


def read_items(latents: Latents, e: jax.Array, mask: jax.Array) -> jax.Array:
    """r, how much each item is to each taste: e float32[..., M, D] to float32[..., M, K]."""
    centred = (e - latents.mean) * mask[..., None]
    return jnp.einsum("...md,mkd->...mk", centred, latents.taste)


def over_users(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one user as one of many, on the first axis of its arguments and results.

    Inside they lie on the last axis, where one instruction serves several of them.
    """

    def first_to_last(a: jax.Array) -> jax.Array:
        return jnp.moveaxis(a, 0, -1)

    def last_to_first(a: jax.Array) -> jax.Array:
        return jnp.moveaxis(a, -1, 0)

    many = jax.vmap(function, in_axes=-1, out_axes=-1)
    return lambda *args: jax.tree.map(last_to_first, many(*jax.tree.map(first_to_last, args)))


def first_prior(latents: Latents) -> Prior:
    """What is believed of a user of whom nothing is known: the crowd."""
    return Prior(latents.log_weights, latents.log_tastes)


def without_weights(latents: Latents) -> Latents:
    """The same crowd, if all its users had the same weights: the grid's points at the centre."""
    grid = simplex(len(latents.mean))[0]
    off = np.sum((grid - 1 / grid.shape[1]) ** 2, axis=1)
    centre = jnp.where(off <= off.min() + 1e-6, 0.0, NEVER)
    return dataclasses.replace(latents, log_weights=jax.nn.log_softmax(centre))


def _join(of_levels: jax.Array) -> jax.Array:
    """Sum over modalities at every point of the grid: float[S, M] to float[G]."""
    level = simplex(of_levels.shape[-1])[1]
    return functools.reduce(jnp.add, [of_levels[of, m] for m, of in enumerate(level.T)])


def _believed(prior: Prior, log_p: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What an evidence float[S, M, K] leaves of a prior.

    Returns:
      Log-probability of the grid float[G]; probabilities of levels float[S, M]; and of tastes given
      the level float[S, M, K].
    """
    _, level, levels = simplex(log_p.shape[1])
    joined = log_p + prior.log_tastes
    by_level = jax.nn.logsumexp(joined, axis=-1)
    weights = jax.nn.log_softmax(_join(by_level) + prior.log_weights)
    at = jnp.asarray(level[:, None] == np.arange(levels)[:, None], jnp.float32)  # [G, S, M]
    of_level = jnp.tensordot(jnp.exp(weights), at, 1)
    return weights, of_level, jnp.exp(joined - by_level[..., None])


def _expected(latents: Latents, of_level: jax.Array, tastes: jax.Array) -> jax.Array:
    """E[strength, taste is k], float[M, K], of the probabilities that `_believed` gives."""
    return jnp.sum((of_level * latents.strength[:, None])[..., None] * tastes, axis=0)


def plain_evidence(latents: Latents, memory: Memory) -> jax.Array:
    """`evidence` as if the modalities had nothing to do with each other: additive over items."""
    n = memory.count[None, :, None]
    return latents.strength[:, None, None] * memory.sums - n * latents.log_z


def evidence(latents: Latents, prior: Prior, memory: Memory) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood of a memory, relative to choices by popularity.

    Args:
      latents: of the crowd.
      prior: of the user.
      memory: sums over the user's items.

    Returns:
      float32[S, M, K], of each strength and taste, and float32[], a constant to be added to its sum
      over modalities.
    """
    _, of_level, tastes = _believed(prior, plain_evidence(latents, memory))
    expected = _expected(latents, of_level, tastes)
    leak = jnp.tensordot(latents.cross, expected, 2) * memory.count[:, None]
    log_p = plain_evidence(latents, Memory(memory.sums - leak, memory.count))
    return log_p, 0.5 * jnp.sum(expected * leak)


def log_likelihood(prior: Prior, log_p: jax.Array, constant: jax.Array) -> jax.Array:
    """float[], `evidence` summed over weights and tastes."""
    by_level = jax.nn.logsumexp(log_p + prior.log_tastes, axis=-1)
    return jax.nn.logsumexp(_join(by_level) + prior.log_weights) + constant


def posterior(latents: Latents, prior: Prior, log_p: jax.Array) -> Preference:
    """Weights and interest that an evidence float32[S, M, K] implies."""
    weights, of_level, tastes = _believed(prior, log_p)
    alpha = jnp.exp(weights) @ jnp.asarray(simplex(log_p.shape[1])[0])
    belief = _expected(latents, of_level, tastes)
    query = jnp.einsum("mk,mkd->md", belief, latents.taste)
    return Preference(alpha, query, alpha @ unit(query, 1e-4), belief)


def updated_prior(prior: Prior, log_p: jax.Array, crowd: Prior, moved: jax.Array) -> Prior:
    """What is believed after a drift, of which the kind is not certain.

    Weights outlast a drift of interest and tastes a drift of weights.

    Args:
      prior: before the items of `log_p`.
      log_p: float32[S, M, K], evidence of the items before the drift.
      crowd: what is believed of a user of whom nothing is known.
      moved: float32[], probability that the interest has drifted, and not the weights.
    """
    weights, of_level, given = _believed(prior, log_p)
    tastes = jnp.sum(of_level[..., None] * given, axis=0)
    stays, goes = jnp.log(moved + 1e-6), jnp.log1p(1e-6 - moved)
    return Prior(
        jnp.logaddexp(stays + weights, goes + crowd.log_weights),
        jnp.logaddexp(goes + jnp.log(tastes + 1e-9), stays + crowd.log_tastes),
    )


def drift_evidence(
    latents: Latents, prior: Prior, before: Memory, recent: Memory
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How much more likely two parts of a history are with a drift between them.

    Args:
      latents: of the crowd.
      prior: of the user.
      before: of the items before the short-term window.
      recent: of the window.

    Returns:
      float32[2], log Bayes factors of new weights under the same tastes, and of new tastes under
      the same weights, against neither; and the evidence of `before` and of `recent`.
    """
    crowd = first_prior(latents)
    whole = jax.tree.map(jnp.add, before, recent)
    old, old_constant = evidence(latents, prior, before)
    new, new_constant = evidence(latents, crowd, recent)
    same = log_likelihood(prior, *evidence(latents, prior, whole))
    apart = old_constant + new_constant
    joined = old + prior.log_tastes
    old_top = jnp.max(joined, axis=-1, keepdims=True)
    new_top = jnp.max(new, axis=-1, keepdims=True)
    # Same tastes in both parts: [S, S, M], summed over K.
    both = jnp.sum(jnp.exp(joined - old_top)[:, None] * jnp.exp(new - new_top), axis=-1)
    pair = jnp.log(both + 1e-30) + old_top[:, None, :, 0] + new_top[:, :, 0]
    level = simplex(new.shape[1])[1]
    pairs = prior.log_weights[:, None] + crowd.log_weights
    for m, of in enumerate(level.T):
        pairs += pair[of[:, None], of, m]
    new_weights = jax.nn.logsumexp(pairs) + apart
    by_level = jax.nn.logsumexp(joined, axis=-1)
    by_level += jax.nn.logsumexp(new + crowd.log_tastes, axis=-1)
    new_tastes = jax.nn.logsumexp(_join(by_level) + prior.log_weights) + apart
    return jnp.stack([new_weights - same, new_tastes - same]), old, new


def item_gains(
    latents: Latents, old: tuple[Prior, jax.Array], new: tuple[Prior, jax.Array], items: Memory
) -> jax.Array:
    """How much more likely single items are under one posterior than under another.

    Args:
      latents: of the crowd.
      old: prior and evidence float32[S, M, K].
      new: the same.
      items: memories of single items, axes [W, ...].

    Returns:
      float32[W], differences of log-likelihood, both posteriors at their means.
    """

    def mean(prior: Prior, log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, of_level, tastes = _believed(prior, log_p)
        log_z = jnp.sum(of_level * jnp.sum(tastes * latents.log_z, axis=-1), axis=0)
        return _expected(latents, of_level, tastes), log_z

    (slope, log_z), (new_slope, new_log_z) = mean(*old), mean(*new)
    gain = jnp.sum(items.sums * (new_slope - slope), axis=(1, 2))
    return gain - jnp.sum(items.count * (new_log_z - log_z), axis=1)
