"""What PMAT says of every user before every interaction, and when an interest has drifted.

Everything here is causal: entry t of a history is computed from entries before t (design 3.8).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from semid_jax.data.sequences import gather_windows, split_end
from semid_jax.models.fusion import Archetypes, assign_archetype, follow_archetype
from semid_jax.models.memory import Memory
from semid_jax.models.perceiver import evidence, first_prior, over_users, posterior
from semid_jax.models.pmat import PmatConfig
from semid_jax.models.stream import (
    Perceiver,
    Reading,
    UserState,
    absorb_all,
    drift_score,
    first_state,
)
from semid_jax.train.tokenizer import Frozen
from semid_jax.types import Interactions

ROWS, BLOCK = 512, 8  # most users, and positions, of a batch: one shape, and bounded memory
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
      archetype: int32[nnz].
      belief: float16[nnz, M, K], see `models.perceiver.Preference`.
    """

    alpha: np.ndarray
    alpha_short: np.ndarray
    drift: np.ndarray
    fired: np.ndarray
    archetype: np.ndarray
    belief: np.ndarray


Carried = tuple[UserState, Reading, jax.Array]


@functools.partial(jax.jit, static_argnames=("judges",))
def read_block(
    perceiver: Perceiver,
    archetypes: Archetypes,
    carried: Carried,
    history: jax.Array,
    threshold: jax.Array,
    hold: jax.Array,
    judges: bool,
) -> tuple[Carried, tuple[Reading, jax.Array]]:
    """Readings before each position of a part of some histories.

    Args:
      perceiver: of the crowd.
      archetypes: prototypes.
      carried: states before the part, what they say, and the archetypes before the last item.
      history: int32[B, T], right-padded.
      threshold: float32[], of drift.
      hold: float32[], see `PmatConfig`.
      judges: False where no history can be judged yet, see `absorb`.

    Returns:
      What to carry on; Reading with axes [T, ..., B], and archetypes int32[T, B].
    """

    def step(carry: Carried, item: jax.Array) -> tuple[Carried, tuple[Reading, jax.Array]]:
        state, reading, held = carry
        said = reading.alpha.T, reading.interest.T
        archetype = follow_archetype(*said, archetypes, held, reading.fired, hold)
        # Interests are large, and nobody asks for them.
        shown = dataclasses.replace(reading, interest=jnp.zeros(()))
        after = absorb_all(perceiver, state, item, threshold, judges)
        return (*after, archetype), (shown, archetype)

    return jax.lax.scan(step, carried, history.T)


def make_perceiver(frozen: Frozen) -> Perceiver:
    """What it takes to read a history, of a trained PMAT."""
    return Perceiver(frozen.latents, frozen.readings, frozen.mask)


def no_readings(perceiver: Perceiver, interactions: Interactions) -> Readings:
    """Of users who are all alike: equal weights, no drift, the first archetype, no belief."""
    nnz, (M, K) = len(interactions.items), perceiver.readings.shape[1:]
    return Readings(
        alpha=np.full((nnz, M), 1 / M, np.float32),
        alpha_short=np.full((nnz, M), 1 / M, np.float32),
        drift=np.full((nnz, 2), -np.inf, np.float32),
        fired=np.zeros(nnz, bool),
        archetype=np.zeros(nnz, np.int32),
        belief=np.zeros((nnz, M, K), np.float16),
    )


def read_all(
    perceiver: Perceiver,
    archetypes: Archetypes,
    interactions: Interactions,
    threshold: float,
    window: int,
    hold: float,
) -> Readings:
    """Reads every user's whole history, in batches of users of like length.

    Args:
      perceiver: of the crowd.
      archetypes: prototypes.
      interactions: histories.
      threshold: of drift; inf where none is to be acted upon.
      window: W.
      hold: see `PmatConfig`.
    """
    lengths = interactions.lengths
    nnz = len(interactions.items)
    out = no_readings(perceiver, interactions)
    order = np.argsort(-lengths, kind="stable")
    rows = min(ROWS, 1 << (len(order) - 1).bit_length())
    state, reading = first_state(perceiver, rows, window)
    blank = assign_archetype(reading.alpha.T, reading.interest.T, archetypes)
    bar = tqdm(total=nnz, desc="read", unit="item", mininterval=2.0, leave=False, file=sys.stderr)
    for at in range(0, len(order), rows):
        users = order[at : at + rows]
        carried = state, reading, blank
        for begin in range(0, int(lengths[users[0]]), BLOCK):  # one shape for all
            start = interactions.offsets[users] + begin
            stop = np.minimum(start + BLOCK, interactions.offsets[users + 1])
            history, _ = gather_windows(interactions.items, start, np.maximum(start, stop), BLOCK)
            carried, (said, archetype) = read_block(
                perceiver,
                archetypes,
                carried,
                np.pad(history, ((0, rows - len(users)), (0, 0))),
                jnp.float32(threshold),
                jnp.float32(hold),
                judges=begin + BLOCK >= 2 * window,
            )
            valid = history > 0
            flat = (start[:, None] + np.arange(BLOCK))[valid]
            shown = ("alpha", "alpha_short", "drift", "fired", "belief")
            found = {"archetype": archetype} | {name: getattr(said, name) for name in shown}
            for name, value in found.items():
                of_users = np.moveaxis(np.asarray(value), -1, 0)[: len(users)]
                getattr(out, name)[flat] = of_users[valid]
            bar.update(int(valid.sum()))
    bar.close()
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
    @over_users
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
    perceiver: Perceiver,
    archetypes: Archetypes,
    interactions: Interactions,
    config: PmatConfig,
    seed: int,
) -> float:
    """How large drift gets by chance, in train parts in shuffled order (design 3.7).

    Shuffling does not undo a drift: it leaves a mixture of two users. Those whose own order shows a
    drift are left out, and so on until the threshold stands, but never more than half.

    Args:
      perceiver: of the crowd.
      archetypes: prototypes.
      interactions: histories; only their train parts are used.
      config: window and quantile.
      seed: of the shuffle, and of the users where there are more than NULL_USERS.

    Returns:
      The quantile over users of the largest score of a shuffled history; inf where none is long
      enough to be judged.
    """
    rng = np.random.default_rng((seed, 7))
    # What is judged is what was read before an item: one more than two windows.
    long = np.flatnonzero(split_end(interactions, "train") > 2 * config.window)
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
        settings = np.inf, config.window, config.hold
        drift = read_all(perceiver, archetypes, histories, *settings).drift
        score = np.asarray(drift_score(jnp.asarray(drift.T)))
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
