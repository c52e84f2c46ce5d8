"""The states that items are chosen in: a transformer that reads histories, and what it says.

The encoder is a SASRec (1808.09781, equations 2 to 5) with DuoRec's contrast of two dropout views
(2110.05730, equation 9; its positives of equal targets are left out), as in Pctx (2510.21276,
section 3.1). It learns from the train parts of histories.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from tqdm import tqdm

from semid_jax.data.sequences import gather_windows, split_end
from semid_jax.models.full_softmax import full_softmax_loss
from semid_jax.models.pmat_losses import contrast
from semid_jax.models.sasrec import SasRec, SasRecConfig
from semid_jax.tokenizers.fused import train
from semid_jax.types import InputError, Interactions

READ = 1024  # windows that are read at once


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """The encoder and its training.

    Attributes:
      width: of its states (Pctx: 256).
      layers: transformer blocks.
      heads: of their attention.
      dropout: which makes the two views.
      max_length: T, items that a state may reach back.
      temperature: of the contrast.
      contrast: its weight.
      steps: of the optimiser.
      batch_size: windows.
      lr: at the peak.
    """

    width: int = 128
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    max_length: int = 20
    temperature: float = 0.07
    contrast: float = 0.2
    steps: int = 2000
    batch_size: int = 128
    lr: float = 1e-3


def read_contexts(interactions: Interactions, config: ContextConfig, seed: int) -> np.ndarray:
    """The state after every interaction, float32[nnz, width]; of items up to it alone.

    Args:
      interactions: histories; later parts than train are only read, never learned from.
      config: settings.
      seed: of everything random here.
    """
    read = fit_encoder(interactions, config, seed)
    out = np.zeros((len(interactions.items), config.width), np.float32)
    for rows, states in _states(interactions, interactions.lengths, config.max_length, read):
        out[rows] = states
    return out


def choosing_contexts(interactions: Interactions, config: ContextConfig, seed: int) -> np.ndarray:
    """The mean state in which each item is chosen.

    Args:
      interactions: histories; only their train parts are read.
      config: settings.
      seed: of everything random here.

    Returns:
      float32[N + 1, width]; NaN for items that follow no other in a train part.

    Raises:
      InputError: no item follows another.
    """
    size = interactions.n_items + 1
    total, count = np.zeros((size, config.width)), np.zeros(size)
    before = np.maximum(split_end(interactions, "train") - 1, 0)
    if not before.any():
        raise InputError("no item follows another in training: leave tokenizer.context at 0")
    read = fit_encoder(interactions, config, seed)
    for rows, states in _states(interactions, before, config.max_length, read):
        chosen = interactions.items[rows + 1]
        total += sums(states, chosen, size)
        count += np.bincount(chosen, minlength=size)
    mean = total / np.where(count > 0, count, np.nan)[:, None]
    return mean.astype(np.float32)


def sums(x: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """float32[groups, w], rows of float32[n, w] summed; add.at takes forty times as long."""
    ones, at = np.ones(len(x), np.float32), np.arange(len(x))
    total: np.ndarray = scipy.sparse.csr_array((ones, (group, at)), (groups, len(x))) @ x
    return total


def fit_encoder(
    interactions: Interactions, config: ContextConfig, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains the encoder: a function of int32[n, T], right padded, to float32[n, T, width]."""
    T, n_items = config.max_length, interactions.n_items
    sizes = SasRecConfig(config.width, config.layers, config.heads, config.dropout)
    model = SasRec(sizes, n_items, T)
    params = jax.jit(model.init)(jax.random.key(seed), None, jnp.zeros((1, 2), jnp.int32))

    def loss(params: Any, data: None, window: jax.Array, key: jax.Array) -> Any:
        del data
        inputs, targets = window[:, :-1], window[:, 1:]
        seeds = jax.random.bits(key, (2, len(window)))
        items, states = model.apply(params, None, inputs, seeds[0])
        other = model.apply(params, items, inputs, seeds[1], method="states")
        bears = (targets > 0).astype(jnp.float32)
        flat = states.reshape(-1, config.width)
        total = full_softmax_loss(flat, items, targets.reshape(-1), bears.reshape(-1))
        next_item = total / jnp.maximum(jnp.sum(bears), 1.0)
        last = jnp.maximum(jnp.sum(inputs > 0, axis=1) - 1, 0)
        rows = jnp.arange(len(window))
        views = contrast(states[rows, last], other[rows, last], config.temperature)
        total = next_item + config.contrast * views
        return total, {"next item": next_item, "contrast": views}

    known = split_end(interactions, "train")
    learners = np.flatnonzero(known >= 2)

    def draw(generator: np.random.Generator, steps: int) -> np.ndarray:
        users = generator.choice(learners, steps * config.batch_size)
        slack = np.maximum(known[users] - (T + 1), 0)
        start = interactions.offsets[users]
        begin = start + (generator.random(len(users)) * (slack + 1)).astype(np.int64)
        end = np.minimum(begin + T + 1, start + known[users])
        windows = gather_windows(interactions.items, begin, end, T + 1)[0]
        return windows.reshape(steps, config.batch_size, T + 1)

    params = train(loss, params, None, draw, config.steps, config.lr, seed, "contexts")
    items = model.apply(params, None, method="items")
    states = jax.jit(lambda history: model.apply(params, items, history, method="states"))
    return lambda history: np.asarray(states(history))


def _states(
    interactions: Interactions,
    lengths: np.ndarray,
    T: int,
    read: Callable[[np.ndarray], np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """States after the first interactions of each history, each once, some windows at a time.

    Windows overlap by half, so that all but a history's first states reach T / 2 items back.

    Args:
      interactions: histories.
      lengths: int64[U], how many of each are read.
      T: of a window.
      read: see `fit_encoder`.

    Yields:
      int64[n], rows of `interactions.items`, and float32[n, width].
    """
    half = max(T // 2, 1)
    pieces = np.where(lengths > 0, np.maximum(-(-(lengths - (T - half)) // half), 1), 0)
    user = np.repeat(np.arange(interactions.n_users), pieces)
    number = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = interactions.offsets[user] + number * half
    end = np.minimum(begin + T, interactions.offsets[user] + lengths[user])
    skip = np.where(number > 0, T - half, 0)
    size, column = min(READ, len(user)), np.arange(T)
    starts = range(0, len(user), size)
    for at in tqdm(starts, desc="contexts read", unit="batch", file=sys.stderr, mininterval=2.0):
        piece = np.arange(at, min(at + size, len(user)))
        rows = np.resize(piece, size)  # one shape, so one program
        history, filled = gather_windows(interactions.items, begin[rows], end[rows], T)
        found = read(history)[: len(piece)]
        fresh = (column < filled[: len(piece), None]) & (column >= skip[piece][:, None])
        yield (begin[piece][:, None] + column)[fresh], found[fresh]
