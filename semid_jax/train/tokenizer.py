"""Trains PMAT on next items, then freezes it into tables (design part 3.5)."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from tqdm import tqdm

from semid_jax.data.sequences import gather_windows, log_proposal, popularity, split_end
from semid_jax.models import memory as memories
from semid_jax.models.encoders import unit
from semid_jax.models.fusion import fuse
from semid_jax.models.memory import Memory
from semid_jax.models.pmat import Pmat, PmatConfig, Population, Preference
from semid_jax.models.pmat_losses import (
    balance_loss,
    contrast,
    next_item_loss,
    reconstruction_loss,
)
from semid_jax.parallel import Parallel
from semid_jax.types import Interactions, ItemFeatures


@struct.dataclass
class Inputs:
    """What every tokenizer step reads.

    Attributes:
      x: modality -> float32[N + 1, d_m].
      mask: bool[N + 1, M].
      log_popularity: float32[N + 1].
      cdf: float32[N + 1], of the proposal that candidates are drawn from.
      log_proposal: float32[N + 1].
    """

    x: dict[str, jax.Array]
    mask: jax.Array
    log_popularity: jax.Array
    cdf: jax.Array
    log_proposal: jax.Array


def make_inputs(features: ItemFeatures, interactions: Interactions) -> Inputs:
    """Puts the features on the device, with a proposal half popular, half uniform."""
    counts = popularity(interactions)
    proposal = log_proposal(counts)
    return Inputs(
        x={name: jnp.asarray(features.x[name]) for name in features.modalities},
        mask=jnp.asarray(features.mask),
        log_popularity=jnp.asarray(np.log(counts + 1.0), jnp.float32),
        cdf=jnp.asarray(np.cumsum(np.exp(proposal))),
        log_proposal=jnp.asarray(proposal),
    )


def make_module(features: ItemFeatures, config: PmatConfig) -> Pmat:
    """The PMAT module for a data set's modalities."""
    sizes = tuple(features.x[name].shape[1] for name in features.modalities)
    return Pmat(features.modalities, sizes, config)


def crowd(e: jax.Array, mask: jax.Array, weight: jax.Array) -> Population:
    """Mean and spread of items, weighted.

    Args:
      e: float32[n, M, D].
      mask: bool[n, M].
      weight: float32[n].
    """
    w = weight[:, None] * mask
    w = w / jnp.maximum(jnp.sum(w, axis=0), 1e-6)
    mean = jnp.einsum("nm,nmd->md", w, e)
    spread = jnp.einsum("nm,nm->m", w, jnp.sum((e - mean) ** 2, axis=-1))
    return Population(mean, jnp.maximum(spread, 1e-3))


def _contributions(
    module: Pmat, params: Any, e: jax.Array, mask: jax.Array, population: Population
) -> Memory:
    weight = module.apply(params, e, method=Pmat.attention)
    return memories.contribution(e, population.mean, weight, mask)


def tokenizer_loss(
    module: Pmat, params: Any, inputs: Inputs, history: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """All losses of PMAT on a batch of histories.

    Args:
      module: PMAT.
      params: its parameters.
      inputs: features and proposal.
      history: int32[B, T], right-padded windows.
      key: draws positions, candidates and pairs.

    Returns:
      The weighted sum and its parts.
    """
    config = module.config
    B, T = history.shape
    P, S, W = config.positions, config.candidates, config.window
    position_key, candidate_key, user_key, other_key = jax.random.split(key, 4)
    drawn = jax.random.uniform(candidate_key, (S,)) * inputs.cdf[-1]
    candidate = jnp.clip(jnp.searchsorted(inputs.cdf, drawn, side="right"), 1, None)
    candidate = jnp.minimum(candidate, inputs.cdf.shape[0] - 1)
    shown = jnp.concatenate([history.reshape(-1), candidate])
    x = {name: table[shown] for name, table in inputs.x.items()}
    mask = inputs.mask[shown]
    e = module.apply(params, x, method=Pmat.encode)
    history_e, candidate_e = e[: B * T], e[B * T :]
    history_mask, candidate_mask = mask[: B * T], mask[B * T :]
    population = jax.lax.stop_gradient(
        crowd(history_e, history_mask, (history.reshape(-1) > 0).astype(jnp.float32))
    )
    added = _contributions(module, params, history_e, history_mask, population)
    added = jax.tree.map(lambda a: a.reshape(B, T, *a.shape[1:]), added)
    long, short = memories.prefixes(added, W)

    length = jnp.sum(history > 0, axis=1, keepdims=True)
    u = jax.random.uniform(position_key, (B, P))
    position = (1 + u * jnp.maximum(length - 1, 1)).astype(jnp.int32)
    position = jnp.minimum(position, jnp.maximum(length - 1, 0))
    weight = ((length > 1) & (position > 0)).astype(jnp.float32).reshape(-1)
    row = jnp.arange(B)[:, None]

    def pick(m: Memory) -> Memory:
        return jax.tree.map(lambda a: a[row, position].reshape(B * P, *a.shape[2:]), m)

    preference: Preference = module.apply(params, pick(long), population, method=Pmat.preference)
    recent: Preference = module.apply(params, pick(short), population, method=Pmat.preference)
    target = history[row, position].reshape(-1)
    target_e = history_e.reshape(B, T, *history_e.shape[1:])[row, position]
    target_e = target_e.reshape(B * P, *target_e.shape[2:])

    scores = module.apply(
        params,
        preference,
        candidate_e,
        candidate_mask,
        inputs.log_popularity[candidate],
        method=Pmat.score,
    )
    target_score = module.apply(
        params,
        preference,
        target_e,
        inputs.mask[target],
        inputs.log_popularity[target],
        method=Pmat.score_own,
    )
    log_count = inputs.log_proposal[candidate] + jnp.log(float(S))
    hit = target[:, None] == candidate
    next_item = next_item_loss(target_score, scores, log_count, hit, weight)

    rebuilt = module.apply(params, candidate_e, method=Pmat.reconstruct)
    candidate_x = {name: table[B * T :] for name, table in x.items()}
    has = {name: candidate_mask[:, m] for m, name in enumerate(module.modalities)}
    reconstruction = reconstruction_loss(candidate_x, rebuilt, has)

    # Consistency: one item under two users, and under one user's long and short weights.
    n = min(S, 256)
    first = jax.random.randint(user_key, (n,), 0, B * P)
    second = jax.random.randint(other_key, (n,), 0, B * P)

    def seen_by(who: Preference, users: jax.Array) -> jax.Array:
        gate = module.apply(params, who.interest[users], method=Pmat.gate)
        return fuse(candidate_e[:n], candidate_mask[:n], who.alpha[users], gate)

    z = seen_by(preference, first)
    consistency = contrast(z, seen_by(preference, second)) + contrast(z, seen_by(recent, first))
    # The updated read side stays closer to its user's long-term interest than to other users'.
    now = jnp.arange(B) * P + (P - 1)
    window_e = target_e.reshape(B, P, *target_e.shape[1:])
    window_mask = inputs.mask[target].reshape(B, P, -1)
    read_gate = module.apply(params, recent.interest[now], method=Pmat.gate)
    read = fuse(window_e, window_mask, recent.alpha[now][:, None], read_gate[:, None])
    consistency += contrast(jnp.mean(unit(read), axis=1), preference.interest[now])
    balance = balance_loss(preference.alpha, weight)
    parts = {
        "next_item_loss": next_item,
        "reconstruction_loss": reconstruction,
        "consistency_loss": consistency,
        "balance_loss": balance,
    }
    total = (
        next_item
        + config.reconstruction * reconstruction
        + config.consistency * consistency
        + config.balance * balance
    )
    return total, parts


def sample_windows(
    interactions: Interactions, users: np.ndarray, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Random windows of users' train parts: int32[B, width], right-padded."""
    known = split_end(interactions, "train")[users]
    offset = interactions.offsets[users]
    slack = np.maximum(known - width, 0)
    start = offset + (rng.random(len(users)) * (slack + 1)).astype(np.int64)
    end = np.minimum(start + width, offset + known)
    return gather_windows(interactions.items, start, end, width)[0]


def fit_pmat(
    features: ItemFeatures,
    interactions: Interactions,
    config: PmatConfig,
    width: int,
    seed: int,
    devices: list[jax.Device] | None = None,
) -> Any:
    """Trains PMAT on the train part; users of a batch are spread over all devices.

    The step is one program over the whole batch (its contrasts need all of it), which the compiler
    partitions along the users; the result is that of one device.

    Args:
      features: normalised features.
      interactions: histories.
      config: settings.
      width: T, window of history.
      seed: of everything random here.
      devices: default all.

    Returns:
      Parameters.
    """
    module = make_module(features, config)
    inputs = make_inputs(features, interactions)
    rng = np.random.default_rng((seed, 1))
    key = jax.random.key(seed)
    one = {name: table[:1] for name, table in inputs.x.items()}
    m, d = len(module.modalities), config.width
    blank = Memory(
        jnp.zeros((1, m, d)),
        jnp.zeros((1, m)),
        jnp.zeros((1, m, d)),
        jnp.zeros((1, m)),
        jnp.zeros((1, m)),
    )
    population = Population(jnp.zeros((m, d)), jnp.ones(m))
    parallel = Parallel("shard_map", devices)
    params = module.init(key, one, blank, population, method=Pmat.initialise)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.lr, min(50, config.steps // 2), max(config.steps, 2)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    params, inputs = parallel.replicate(params), parallel.replicate(inputs)
    state = parallel.replicate(optimiser.init(params))

    @jax.jit
    def step(
        params: Any, state: Any, inputs: Inputs, history: jax.Array, number: jax.Array
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        gradient, parts = jax.grad(
            lambda p: tokenizer_loss(module, p, inputs, history, step_key), has_aux=True
        )(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, parts

    known = np.flatnonzero(split_end(interactions, "train") >= 2)
    size = min(config.batch_size, len(known))
    size = size - size % len(parallel.devices) or size
    longest = int(split_end(interactions, "train").max())
    width = min(width + 1, longest)
    parts: dict[str, jax.Array] = {}
    bar = tqdm(range(config.steps), desc="tokenize", unit="step", file=sys.stderr, mininterval=2.0)
    for number in bar:
        users = rng.choice(known, size, replace=False)
        history = sample_windows(interactions, users, width, rng)
        if size % len(parallel.devices) == 0:
            history = parallel.split(history)
        params, state, parts = step(params, state, inputs, history, jnp.int32(number))
        if number % 50 == 49:
            bar.set_postfix_str(f"loss {float(parts['next_item_loss']):.3f}")
    said = ", ".join(f"{name.replace('_', ' ')} {float(v):.3f}" for name, v in parts.items())
    print(f"tokenize: PMAT after {config.steps} steps: {said}")
    return parallel.fetch(params)


@struct.dataclass
class Frozen:
    """PMAT after training: all that later stages need of it.

    Attributes:
      params: of the module.
      e: float32[N + 1, M, D], encoded items, zero where one lacks the modality.
      mask: bool[N + 1, M].
      attention: float32[N + 1, M], weight of each item in its summary.
      population: the crowd of training interactions.
    """

    params: Any
    e: jax.Array
    mask: jax.Array
    attention: jax.Array
    population: Population


def freeze(module: Pmat, params: Any, features: ItemFeatures, counts: np.ndarray) -> Frozen:
    """Encodes all items once.

    Args:
      module: PMAT.
      params: trained.
      features: normalised features.
      counts: int64[N + 1], training interactions per item.
    """
    encode = jax.jit(lambda p, x: module.apply(p, x, method=Pmat.encode))
    rows = len(counts)
    chunk = 65536
    parts = [
        encode(params, {k: jnp.asarray(v[at : at + chunk]) for k, v in features.x.items()})
        for at in range(0, rows, chunk)
    ]
    e = jnp.concatenate(parts) * jnp.asarray(features.mask)[..., None]
    attention = module.apply(params, e, method=Pmat.attention)
    mask = jnp.asarray(features.mask)
    population = crowd(e, mask, jnp.asarray(counts, jnp.float32))
    return Frozen(params, e, mask, attention, population)
