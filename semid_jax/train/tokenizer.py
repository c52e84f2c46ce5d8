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
from semid_jax.models.pmat import Pmat, PmatConfig
from semid_jax.models.pmat_losses import (
    balance_loss,
    contrast,
    next_item_loss,
)
from semid_jax.parallel import Parallel
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
        e=encode(features, width),
        mask=jnp.asarray(features.mask),
        log_popularity=jnp.asarray(np.log(counts + 1.0), jnp.float32),
        cdf=jnp.asarray(np.cumsum(np.exp(proposal))),
        log_proposal=jnp.asarray(proposal),
    )


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
    config = module.config
    B = len(history)
    P, S, W = config.positions, config.candidates, config.window
    position_key, candidate_key, user_key, other_key = jax.random.split(key, 4)
    drawn = jax.random.uniform(candidate_key, (S,)) * inputs.cdf[-1]
    candidate = jnp.clip(jnp.searchsorted(inputs.cdf, drawn, side="right"), 1, None)
    candidate = jnp.minimum(candidate, inputs.cdf.shape[0] - 1)
    candidate_e, candidate_mask = inputs.e[candidate], inputs.mask[candidate]
    log_count = inputs.log_proposal[candidate] + jnp.log(float(S))
    log_popularity = inputs.log_popularity[candidate]
    latents: Latents = module.apply(
        params, candidate_e, candidate_mask, log_popularity, log_count, method=Pmat.latents
    )
    prior = first_prior(latents)
    read = read_items(latents, inputs.e[history], inputs.mask[history])
    added = Memory(read, inputs.mask[history].astype(jnp.float32))
    long, short = prefixes(added, W)

    length = jnp.sum(history > 0, axis=1, keepdims=True)
    u = jax.random.uniform(position_key, (B, P))
    position = (1 + u * jnp.maximum(length - 1, 1)).astype(jnp.int32)
    position = jnp.minimum(position, jnp.maximum(length - 1, 0))
    weight = ((length > 1) & (position > 0)).astype(jnp.float32).reshape(-1)
    row = jnp.arange(B)[:, None]

    def prefer(m: Memory, rows: jax.Array) -> Preference:
        m = jax.tree.map(lambda a: a[row, position].reshape(B * P, *a.shape[2:])[rows], m)
        of_one = lambda m: posterior(latents, prior, evidence(latents, prior, m)[0])  # noqa: E731
        return over_users(of_one)(m)

    preference = prefer(long, jnp.arange(B * P))
    target = history[row, position].reshape(-1)
    target_e = inputs.e[target]

    centred = (candidate_e - latents.mean) * candidate_mask[..., None]
    scores = module.apply(params, preference, centred, log_popularity, method=Pmat.score)
    centred = (target_e - latents.mean) * inputs.mask[target][..., None]
    own = inputs.log_popularity[target]
    target_score = module.apply(params, preference, centred, own, method=Pmat.score_own)
    hit = target[:, None] == candidate
    next_item = next_item_loss(target_score, scores, log_count, hit, weight)

    # Consistency: one item under two users, and under one user's long and short weights.
    n = min(S, 256)
    first = jax.random.randint(user_key, (n,), 0, B * P)
    second = jax.random.randint(other_key, (n,), 0, B * P)

    now = jnp.arange(B) * P + (P - 1)
    recent = prefer(short, jnp.concatenate([first, now]))

    def seen_by(who: Preference, users: jax.Array) -> jax.Array:
        gate = module.apply(params, who.interest[users], method=Pmat.gate)
        return fuse(candidate_e[:n], candidate_mask[:n], who.alpha[users], gate)

    z = seen_by(preference, first)
    consistency = contrast(z, seen_by(preference, second))
    consistency += contrast(z, seen_by(recent, jnp.arange(n)))
    # The updated read side stays closer to its user's long-term interest than to other users'.
    window_e = target_e.reshape(B, P, *target_e.shape[1:])
    window_mask = inputs.mask[target].reshape(B, P, -1)
    read_gate = module.apply(params, recent.interest[n:], method=Pmat.gate)
    side = fuse(window_e, window_mask, recent.alpha[n:, None], read_gate[:, None])
    consistency += contrast(jnp.mean(unit(side), axis=1), preference.interest[now])
    balance = balance_loss(preference.alpha, weight)
    parts = {
        "next_item_loss": next_item,
        "consistency_loss": consistency,
        "balance_loss": balance,
    }
    total = next_item + config.consistency * consistency + config.balance * balance
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
    module = Pmat(features.modalities, config)
    inputs = make_inputs(features, interactions, config.width)
    rng = np.random.default_rng((seed, 1))
    key = jax.random.key(seed)
    parallel = Parallel("shard_map", devices)
    params = module.init(key, inputs.e[1:2], method=Pmat.initialise)
    params = start_tastes(module, params, inputs, interactions, rng)
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


def start_tastes(
    module: Pmat,
    params: Any,
    inputs: Inputs,
    interactions: Interactions,
    rng: np.random.Generator,
) -> Any:
    """Starts the tastes from those of some users, by how their items differ from the crowd's.

    Args:
      module: PMAT.
      params: as initialised.
      inputs: encoded items.
      interactions: histories; only their train parts are used.
      rng: draws the users, long histories more often.
    """
    known = split_end(interactions, "train")
    K = module.config.tastes
    users = rng.choice(len(known), K, replace=len(known) < K, p=known / known.sum())
    windows = sample_windows(interactions, users, min(int(known.max()), 64), rng)
    counts = popularity(interactions)
    crowd = rng.choice(len(counts), 4096, p=counts / counts.sum())
    items, place = np.unique(np.concatenate([windows.ravel(), crowd]), return_inverse=True)
    e = np.asarray(inputs.e[items])
    mask = np.asarray(inputs.mask[items], np.float32)
    inner = dict(params["params"])
    of_windows, of_crowd = place[: windows.size].reshape(windows.shape), place[windows.size :]
    for m, name in enumerate(module.modalities):
        weight = mask[of_crowd, m] / max(mask[of_crowd, m].sum(), 1.0)
        mean = weight @ e[of_crowd, m]
        centred = (e[:, m] - mean) * mask[:, m : m + 1]
        covariance = (centred[of_crowd] * weight[:, None]).T @ centred[of_crowd]
        ridge = 0.3 * np.trace(covariance) / len(covariance) + 1e-6
        sums = (centred[of_windows] * (windows > 0)[..., None]).sum(axis=1)
        start = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), sums.T).T
        start += 1e-3 * rng.standard_normal(start.shape)
        size = np.sqrt((start**2).mean(axis=1, keepdims=True))
        like = inner[f"taste_{name}"]
        inner[f"taste_{name}"] = jnp.asarray(0.04 * start / size, like.dtype)
    return {**params, "params": inner}


@struct.dataclass
class Frozen:
    """PMAT after training: all that later stages need of it.

    Attributes:
      params: of the module.
      e: float32[N + 1, M, D], encoded items, zero where one lacks the modality.
      mask: bool[N + 1, M].
      latents: of the crowd of training interactions.
      readings: float32[N + 1, M, K], what the tastes read in each item.
    """

    params: Any
    e: jax.Array
    mask: jax.Array
    latents: Latents
    readings: jax.Array


CROWD = 65536  # items at most that stand for the crowd


def freeze(
    module: Pmat, params: Any, features: ItemFeatures, counts: np.ndarray, seed: int
) -> Frozen:
    """Normalises the perceiver by the crowd and reads all items once.

    Args:
      module: PMAT.
      params: trained.
      features: normalised features.
      counts: int64[N + 1], training interactions per item.
      seed: of the items that stand for the crowd, where there are more than CROWD.
    """
    e, rows = encode(features, module.config.width), len(counts)
    mask = jnp.asarray(features.mask)
    log_proposal_of = log_proposal(counts)
    crowd, log_drawn = np.arange(1, rows), np.zeros(rows - 1, np.float32)
    if len(crowd) > CROWD:
        share = np.exp(log_proposal_of[1:].astype(np.float64))
        rng = np.random.default_rng((seed, 8))
        crowd = 1 + rng.choice(rows - 1, CROWD, p=share / share.sum())
        log_drawn = log_proposal_of[crowd]
    log_popularity = jnp.asarray(np.log(counts[crowd] + 1.0), jnp.float32)
    some = e[crowd], mask[crowd], log_popularity, jnp.asarray(log_drawn)
    latents = jax.jit(lambda p, *a: module.apply(p, *a, method=Pmat.latents))(params, *some)
    return Frozen(params, e, mask, latents, read_items(latents, e, mask))
