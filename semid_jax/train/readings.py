"""What PMAT says of every user before every interaction, and when an interest has drifted.

Everything here is causal: entry t of a history is computed from entries before t (design 3.8).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.sequences import gather_windows, split_end
from semid_jax.models.fusion import Archetypes, assign_archetype
from semid_jax.models.memory import Memory
from semid_jax.models.perceiver import evidence, first_prior, posterior
from semid_jax.models.pmat import PmatConfig
from semid_jax.models.stream import Perceiver, Reading, absorb, drift_score, first_state
from semid_jax.train.tokenizer import Frozen
from semid_jax.types import Interactions

POSITIONS = 32768  # positions of a batch: bounds memory at any history length
USERS = 1024  # of a batch, where histories are summed at once
NULL_USERS = 1024  # whose histories are shuffled to see how large drift gets by chance


@dataclasses.dataclass(frozen=True)
class Readings:
    """What PMAT says before every interaction; flat, aligned with Interactions.items.

    Attributes:
      alpha: float32[nnz, M], weights by all that is known of the user.
      alpha_short: float32[nnz, M], over the last W.
      drift: float32[nnz, 2], log Bayes factors of new weights and of new tastes, see
        `models.stream`; -inf where it was not judged.
      fired: bool[nnz], the item before this interaction showed a drift.
      archetype: int32[nnz], 0 if no archetypes were given.
    """

    alpha: np.ndarray
    alpha_short: np.ndarray
    drift: np.ndarray
    fired: np.ndarray
    archetype: np.ndarray


@functools.partial(jax.jit, static_argnames=("window",))
def read_windows(
    perceiver: Perceiver,
    archetypes: Archetypes | None,
    history: jax.Array,
    threshold: jax.Array,
    window: int,
) -> tuple[Reading, jax.Array]:
    """Readings before each position of whole histories.

    Args:
      perceiver: of the crowd.
      archetypes: prototypes, or None.
      history: int32[B, T], from each user's first interaction on, right-padded.
      threshold: float32[], of drift.
      window: W.

    Returns:
      Reading with axes [B, T], and archetypes int32[B, T].
    """

    def step(carry: tuple, item: jax.Array) -> tuple[tuple, tuple[Reading, jax.Array]]:
        state, reading = carry
        archetype = jnp.zeros(item.shape, jnp.int32)
        if archetypes is not None:
            archetype = assign_archetype(reading.alpha, reading.interest, archetypes)
        return absorb(perceiver, state, item, threshold), (reading, archetype)

    first = first_state(perceiver, len(history), window)
    _, found = jax.lax.scan(step, first, history.T)
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), found)


def make_perceiver(frozen: Frozen) -> Perceiver:
    """What it takes to read a history, of a trained PMAT."""
    return Perceiver(frozen.latents, frozen.readings, frozen.mask)


def read_all(
    perceiver: Perceiver,
    archetypes: Archetypes | None,
    interactions: Interactions,
    threshold: float,
    window: int,
) -> Readings:
    """Reads every user's whole history, in batches of users of like length.

    Args:
      perceiver: of the crowd.
      archetypes: prototypes, or None before they are fitted.
      interactions: histories.
      threshold: of drift; inf where none is to be acted upon.
      window: W.
    """
    lengths = interactions.lengths
    nnz, M = len(interactions.items), perceiver.mask.shape[1]
    out = Readings(
        alpha=np.zeros((nnz, M), np.float32),
        alpha_short=np.zeros((nnz, M), np.float32),
        drift=np.zeros((nnz, 2), np.float32),
        fired=np.zeros(nnz, bool),
        archetype=np.zeros(nnz, np.int32),
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
            reading, archetype = read_windows(
                perceiver, archetypes, history, jnp.float32(threshold), window
            )
            n = len(users)
            valid = history[:n] > 0
            flat = (start[:n, None] + np.arange(width))[valid]
            for name in ("alpha", "alpha_short", "drift", "fired"):
                getattr(out, name)[flat] = np.asarray(getattr(reading, name))[:n][valid]
            out.archetype[flat] = np.asarray(archetype)[:n][valid]
    return out


def read_ends(
    perceiver: Perceiver, interactions: Interactions, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each user's first `end` items say, no drift being looked for.

    Args:
      perceiver: of the crowd.
      interactions: histories.
      end: int64[U].

    Returns:
      alpha float32[U, M] and interest float32[U, D].
    """
    latents = perceiver.latents

    @jax.jit
    def prefer(memory: Memory) -> tuple[jax.Array, jax.Array]:
        prior = first_prior(latents)
        found = posterior(latents, prior, evidence(latents, prior, memory)[0])
        return found.alpha, found.interest

    positions = positions_of(interactions)
    user = np.repeat(np.arange(interactions.n_users), interactions.lengths)
    seen = positions < end[user]
    items, user = interactions.items[seen], user[seen]
    borders = np.searchsorted(user, np.arange(0, interactions.n_users + USERS, USERS))
    alpha, interest = [], []
    for block, (start, stop) in enumerate(itertools.pairwise(borders)):
        of = jnp.asarray(user[start:stop] - block * USERS)
        shown = jnp.asarray(items[start:stop])
        sums = jax.ops.segment_sum(perceiver.readings[shown], of, USERS)
        count = jax.ops.segment_sum(perceiver.mask[shown].astype(jnp.float32), of, USERS)
        found = prefer(Memory(sums, count))
        alpha.append(np.asarray(found[0]))
        interest.append(np.asarray(found[1]))
    rows = slice(interactions.n_users)
    return np.concatenate(alpha)[rows], np.concatenate(interest)[rows]


def fit_threshold(
    perceiver: Perceiver, interactions: Interactions, config: PmatConfig, seed: int
) -> float:
    """How large drift gets by chance, in train parts in shuffled order (design 3.7).

    Shuffling does not undo a drift: it leaves a mixture of two users. Those whose own order shows a
    drift are left out, and so on until the threshold stands, but never more than half.

    Args:
      perceiver: of the crowd.
      interactions: histories; only their train parts are used.
      config: window and quantile.
      seed: of the shuffle, and of the users where there are more than NULL_USERS.

    Returns:
      The quantile over users of the largest score of a shuffled history; inf where none is long
      enough to be judged.
    """
    rng = np.random.default_rng((seed, 7))
    long = np.flatnonzero(split_end(interactions, "train") >= 2 * config.window)
    if not len(long):
        return np.inf
    if len(long) > NULL_USERS:
        long = np.sort(rng.choice(long, NULL_USERS, replace=False))
    known = split_end(interactions, "train")[long]
    user = np.repeat(np.arange(len(long)), known)
    offsets = np.concatenate([[0], np.cumsum(known)])
    inside = np.arange(len(user)) - offsets[user]
    items = interactions.items[interactions.offsets[long][user] + inside]

    def largest(order: np.ndarray) -> np.ndarray:
        histories = Interactions(
            interactions.user_ids[long], items[order], offsets, None, interactions.n_items
        )
        drift = read_all(perceiver, None, histories, np.inf, config.window).drift
        score = np.asarray(drift_score(jnp.asarray(drift)))
        return np.maximum.reduceat(score, offsets[:-1])

    own = largest(np.arange(len(items)))
    chance = largest(np.lexsort((rng.random(len(items)), user)))
    threshold = np.inf
    for _ in range(20):
        steady = own <= max(threshold, np.median(own))
        found = np.quantile(chance[steady], config.quantile)
        if found == threshold:
            break
        threshold = found
    return float(threshold)


def positions_of(interactions: Interactions) -> np.ndarray:
    """int64[nnz], how many interactions of the same user come before."""
    starts = np.repeat(interactions.offsets[:-1], interactions.lengths)
    return np.arange(len(interactions.items)) - starts
