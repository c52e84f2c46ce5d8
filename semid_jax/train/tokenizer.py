"""Trains PMAT on next items, then freezes it into tables (design part 3.5)."""

from __future__ import annotations

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from tqdm import tqdm

from semid_jax.data.sequences import gather_windows, log_proposal, popularity, split_end
from semid_jax.features.behaviour import NAME, behaviour_vectors
from semid_jax.models.encoders import encode
from semid_jax.models.perceiver import Latents, read_items
from semid_jax.models.pmat import Pmat, PmatConfig, find_owners
from semid_jax.parallel import Parallel
from semid_jax.train.tokenizer_loss import (
    Inputs,
    Windows,
    make_inputs,
    make_windows,
    tokenizer_loss,
)
from semid_jax.types import Interactions, ItemFeatures


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
    module = Pmat(features.modalities, config, len(features.mask))
    inputs = make_inputs(features, interactions, config.width)
    rng = np.random.default_rng((seed, 1))
    key = jax.random.key(seed)
    parallel = Parallel("shard_map", devices)
    initialise = functools.partial(module.init, method=Pmat.initialise)
    params = jax.jit(initialise)(key, inputs.e[1:2])
    params = start_tastes(module, params, inputs, interactions, rng)
    if config.own:
        params["params"]["own"] = start_own(interactions, config)
    if not config.steps:
        return params
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.lr, min(50, config.steps // 2), max(config.steps, 2)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    params, inputs = parallel.replicate(params), parallel.share(inputs)
    state = parallel.replicate(optimiser.init(params))

    @jax.jit
    def step(
        params: Any, state: Any, inputs: Inputs, windows: Windows, number: jax.Array
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
        gradient, parts = jax.grad(
            lambda p: tokenizer_loss(module, p, inputs, windows, step_key), has_aux=True
        )(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, parts

    known = np.flatnonzero(split_end(interactions, "train") >= 2)
    size = min(config.batch_size, len(known))
    size = size - size % len(parallel.devices) or size
    longest = int(split_end(interactions, "train").max())
    width = min(width + 1, longest)
    parts: dict[str, jax.Array] = {}
    room = 0
    bar = tqdm(range(config.steps), desc="tokenize", unit="step", file=sys.stderr, mininterval=2.0)
    for number in bar:
        users = rng.choice(known, size, replace=False)
        windows = make_windows(sample_windows(interactions, users, width, rng), room)
        room = len(windows.items)
        if size % len(parallel.devices) == 0:
            windows = Windows(parallel.replicate(windows.items), parallel.split(windows.place))
        params, state, parts = step(params, state, inputs, windows, jnp.int32(number))
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


def start_own(interactions: Interactions, config: PmatConfig) -> jax.Array:
    """The items' own vectors before training: float32[N + 1, D], of norm `config.own` or zero.

    They are what behaviour would be as a modality.
    """
    made = behaviour_vectors(interactions, config.width)
    present = np.isfinite(made).all(axis=1)
    e = encode({NAME: np.nan_to_num(made)}, {NAME: present}, config.width)
    return config.own * e[:, 0]


@struct.dataclass
class Frozen:
    """PMAT after training: all that later stages need of it.

    Attributes:
      params: of the module.
      e: float32[N + 1, M, D], encoded items, zero where one lacks the modality; of a tokenizer
        that was read, as h on disk until `Tokenizer.views` asks for it.
      h: float32[N + 1, M, D], the same as z takes them.
      mask: bool[N + 1, M].
      table: float32[M, K, D], what the tastes ask of z.
      latents: of the crowd of training interactions.
      readings: float32[N + 1, M, K], what the tastes read in each item.
    """

    params: Any
    e: jax.Array | np.ndarray
    h: jax.Array | np.ndarray
    mask: jax.Array
    table: jax.Array
    latents: Latents
    readings: jax.Array


CROWD = 65536  # items at most that stand for the crowd
ROWS = 65536  # items refined at once: the perceptron's hidden layer is several times their size


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
    e = encode(features.x, features.present, module.config.width)
    rows, mask = len(counts), jnp.asarray(features.mask)
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
    owner = jnp.asarray(find_owners(counts))
    h = jax.jit(functools.partial(refine_items, module))(params, e, owner)
    table = module.apply(params, latents.taste, method=Pmat.table)
    return Frozen(params, e, h, mask, table, latents, read_items(latents, e, mask))


def refine_items(module: Pmat, params: Any, e: jax.Array, owner: jax.Array) -> jax.Array:
    """h of all items, float32[N + 1, M, D], some at a time, see `Pmat.refine`."""

    def refine(item: tuple[jax.Array, jax.Array]) -> jax.Array:
        made: jax.Array = module.apply(params, *item, method=Pmat.refine)
        return made

    return jax.lax.map(refine, (e, owner), batch_size=ROWS)
