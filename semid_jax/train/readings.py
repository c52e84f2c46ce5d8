"""What PMAT says of every user before every interaction, and when an interest has drifted.

Everything here is causal: entry t of a history is computed from entries before t (design 3.8).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.sequences import gather_windows, split_end
from semid_jax.models import memory as memories
from semid_jax.models.fusion import Archetypes, assign_archetype
from semid_jax.models.pmat import Pmat, PmatConfig, Preference
from semid_jax.train.tokenizer import Frozen
from semid_jax.types import Interactions

POSITIONS = 16384  # positions of a batch: bounds memory at any history length


@dataclasses.dataclass(frozen=True)
class Readings:
    """What PMAT says before every interaction; flat, aligned with Interactions.items.

    Attributes:
      alpha: float32[nnz, M], long-term weights.
      alpha_short: float32[nnz, M], over the last W.
      interest: float32[U, D], long-term interest before each user's `end`.
      drift: float32[nnz, 2], Jensen-Shannon distance of the weights and 1 - cosine of interests.
      archetype: int32[nnz] under long-term weights, 0 if no archetypes were given.
      archetype_short: int32[nnz] under short-term weights.
    """

    alpha: np.ndarray
    alpha_short: np.ndarray
    interest: np.ndarray
    drift: np.ndarray
    archetype: np.ndarray
    archetype_short: np.ndarray


def jensen_shannon(p: jax.Array, q: jax.Array) -> jax.Array:
    """Jensen-Shannon distance (base 2, square root), in [0, 1], along the last axis."""
    middle = 0.5 * (p + q)

    def divergence(a: jax.Array) -> jax.Array:
        return jnp.sum(a * (jnp.log2(a + 1e-9) - jnp.log2(middle + 1e-9)), axis=-1)

    return jnp.sqrt(jnp.maximum(0.5 * (divergence(p) + divergence(q)), 0.0))


@functools.partial(jax.jit, static_argnames=("module",))
def read_windows(
    module: Pmat, frozen: Frozen, archetypes: Archetypes | None, history: jax.Array
) -> tuple[Preference, Preference, jax.Array, jax.Array, jax.Array]:
    """Preferences before each position of whole histories.

    Args:
      module: PMAT.
      frozen: its tables.
      archetypes: prototypes, or None.
      history: int32[B, T], from each user's first interaction on, right-padded.

    Returns:
      long and short Preference with axes [B, T], drift float32[B, T, 2], archetypes int32[B, T]
      under the long and under the short one.
    """
    added = memories.contribution(
        frozen.e[history], frozen.population.mean, frozen.attention[history], frozen.mask[history]
    )
    both = []
    for memory in memories.prefixes(added, module.config.window):
        both.append(module.apply(frozen.params, memory, frozen.population, method=Pmat.preference))
    long, short = both
    cosine = jnp.sum(long.interest * short.interest, -1) / jnp.maximum(
        jnp.linalg.norm(long.interest, axis=-1) * jnp.linalg.norm(short.interest, axis=-1), 1e-6
    )
    drift = jnp.stack([jensen_shannon(long.alpha, short.alpha), 1.0 - cosine], axis=-1)
    if archetypes is None:
        zeros = jnp.zeros(history.shape, jnp.int32)
        return long, short, drift, zeros, zeros
    return (
        long,
        short,
        drift,
        assign_archetype(long.alpha, long.interest, archetypes),
        assign_archetype(short.alpha, short.interest, archetypes),
    )


def read_all(
    module: Pmat,
    frozen: Frozen,
    archetypes: Archetypes | None,
    interactions: Interactions,
    end: np.ndarray,
) -> Readings:
    """Reads every user's whole history, in batches of users of like length.

    Args:
      module: PMAT.
      frozen: its tables.
      archetypes: prototypes, or None before they are fitted.
      interactions: histories.
      end: int64[U], where `interest` is taken (in positions of the user, < length).
    """
    lengths = interactions.lengths
    nnz, M, D = len(interactions.items), frozen.mask.shape[1], frozen.e.shape[-1]
    out = Readings(
        alpha=np.zeros((nnz, M), np.float32),
        alpha_short=np.zeros((nnz, M), np.float32),
        interest=np.zeros((len(lengths), D), np.float32),
        drift=np.zeros((nnz, 2), np.float32),
        archetype=np.zeros(nnz, np.int32),
        archetype_short=np.zeros(nnz, np.int32),
    )
    order = np.argsort(lengths, kind="stable")
    widths = 2 ** np.ceil(np.log2(np.maximum(lengths[order], 16))).astype(np.int64)
    for width in np.unique(widths):  # a handful of shapes
        users_of_width = order[widths == width]
        rows = max(POSITIONS // int(width), 1)
        for at in range(0, len(users_of_width), rows):
            users = users_of_width[at : at + rows]
            padded = np.resize(users, rows)
            start = interactions.offsets[padded]
            history, _ = gather_windows(
                interactions.items, start, start + lengths[padded], int(width)
            )
            long, short, drift, archetype, archetype_short = read_windows(
                module, frozen, archetypes, history
            )
            n = len(users)
            valid = history[:n] > 0
            flat = (start[:n, None] + np.arange(width))[valid]
            out.alpha[flat] = np.asarray(long.alpha)[:n][valid]
            out.alpha_short[flat] = np.asarray(short.alpha)[:n][valid]
            out.drift[flat] = np.asarray(drift)[:n][valid]
            out.archetype[flat] = np.asarray(archetype)[:n][valid]
            out.archetype_short[flat] = np.asarray(archetype_short)[:n][valid]
            out.interest[users] = np.asarray(long.interest[jnp.arange(n), jnp.asarray(end[users])])
    return out


@dataclasses.dataclass(frozen=True)
class DriftNull:
    """How large drift gets by chance, by length of the history before (powers of two).

    Attributes:
      mean: float32[B, 2], of both statistics under the null.
      deviation: float32[B, 2].
      threshold: float32[B], the quantile of the largest standardised sum of a whole history.
    """

    mean: np.ndarray
    deviation: np.ndarray
    threshold: np.ndarray


BUCKETS = 12


def length_bucket(position: np.ndarray) -> np.ndarray:
    """int64, the bucket of a number of earlier interactions: 0, 1, 2-3, 4-7 …"""
    return np.minimum(np.log2(np.maximum(position, 1)).astype(np.int64) + (position > 0), 11)


def positions_of(interactions: Interactions) -> np.ndarray:
    """int64[nnz], how many interactions of the same user come before."""
    starts = np.repeat(interactions.offsets[:-1], interactions.lengths)
    return np.arange(len(interactions.items)) - starts


def standardised_drift(drift: np.ndarray, position: np.ndarray, null: DriftNull) -> np.ndarray:
    """float32[nnz], the sum of both statistics, each standardised by its null."""
    bucket = length_bucket(position)
    return ((drift - null.mean[bucket]) / null.deviation[bucket]).sum(axis=1)


def drift_threshold(interactions: Interactions, null: DriftNull) -> np.ndarray:
    """float32[nnz], the threshold that applies to each interaction: that of its whole history."""
    bucket = length_bucket(split_end(interactions, "train"))
    return np.repeat(null.threshold[bucket], interactions.lengths)


def can_drift(position: np.ndarray, window: int) -> np.ndarray:
    """Drift is judged once the short-term memory is full and as much lies before it."""
    return position >= 2 * window


def fit_null(
    module: Pmat, frozen: Frozen, interactions: Interactions, config: PmatConfig, seed: int
) -> DriftNull:
    """The null: the same train parts in shuffled order (design 3.7).

    Args:
      module: PMAT.
      frozen: its tables.
      interactions: histories; only their train parts are used.
      config: window and quantile.
      seed: of the shuffle.
    """
    known = split_end(interactions, "train")
    user = np.repeat(np.arange(interactions.n_users), known)
    offsets = np.concatenate([[0], np.cumsum(known)])
    inside = np.arange(len(user)) - np.repeat(offsets[:-1], known)
    items = interactions.items[interactions.offsets[user] + inside]
    rng = np.random.default_rng((seed, 7))
    items = items[np.lexsort((rng.random(len(items)), user))]
    shuffled = Interactions(interactions.user_ids, items, offsets, None, interactions.n_items)
    drift = read_all(module, frozen, None, shuffled, np.zeros(len(known), np.int64)).drift
    judged = can_drift(inside, config.window)
    bucket = length_bucket(inside)
    mean, deviation = np.zeros((BUCKETS, 2)), np.ones((BUCKETS, 2))
    for b in range(BUCKETS):
        rows = judged & (bucket == b)
        if rows.sum() > 1:
            mean[b], deviation[b] = drift[rows].mean(axis=0), drift[rows].std(axis=0) + 1e-6
    null = DriftNull(mean, deviation, np.full(BUCKETS, np.inf))
    score = np.where(judged, standardised_drift(drift, inside, null), -np.inf)
    largest = np.full(len(known), -np.inf)
    np.maximum.at(largest, user, score)
    whole = length_bucket(known)
    for b in range(BUCKETS):
        of_bucket = largest[(whole == b) & np.isfinite(largest)]
        if len(of_bucket):
            null.threshold[b] = np.quantile(of_bucket, config.quantile)
    return null
