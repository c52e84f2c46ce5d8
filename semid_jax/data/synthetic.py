"""The synthetic world: choices whose cause is known, to check what real data cannot (design 7).

User u has weights alpha[u] over the modalities and a taste x[u, m] in each and chooses by them, see
`choices`. Weights of some users, tastes of others, change once, at a planted time.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semid_jax.data.choices import choose_items, directions, fit_beta, log_popularity
from semid_jax.data.source import SHORTEST_HISTORY, RawDataset, count_missing
from semid_jax.types import Catalogue, InputError, Interactions

NO_DRIFT, ALPHA_DRIFT, INTEREST_DRIFT = 0, 1, 2
DRIFT_MARGIN = 15  # interactions on either side of a drift, so that it can be seen
DRIFT_DISTANCE = 0.3  # least Jensen-Shannon distance between weights before and after
TOPIC_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "indigo",
    "jasper",
    "kelp",
    "lotus",
    "maple",
    "nectar",
    "opal",
    "pine",
    "quartz",
    "raven",
    "sage",
    "tulip",
    "umber",
    "violet",
    "willow",
    "yarrow",
    "zephyr",
)

LARGEST_TASTES = 50_000  # topics ** M; beyond, the oracle's sum is no longer a matter of seconds


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """A world's size and laws.

    Attributes:
      n_users: U.
      n_items: N.
      topics: topics of items, and tastes of a user per modality.
      mean_length: interactions per user, about; the shortest history has 5.
      modalities: names, M of them.
      latent: width q of e*[i, m].
      private_share: share of |e*|^2 that is the item's own in that modality, not its topic's.
      feature_width: d_m, width of the observed features.
      noise: norm of the noise in an observed feature row, relative to the signal's.
      missing_rate: share of (item, modality) pairs that are not observed.
      popularity_exponent: a of popularity ~ (rank + 10) ** -a.
      gamma: weight of popularity in choices.
      drift_alpha_share: share of users whose weights change.
      drift_interest_share: share of users whose tastes change.
      oracle_ndcg: NDCG@10 of the ranking by the true p, which sets beta.
      control: weights are drawn but unused, choices weigh all modalities the same.
      seed: of everything.
    """

    n_users: int = 3000
    n_items: int = 2000
    topics: int = 14
    mean_length: float = 35.0
    modalities: tuple[str, ...] = ("audio", "image", "text")
    latent: int = 8
    private_share: float = 0.8
    feature_width: int = 48
    noise: float = 0.3
    missing_rate: float = 0.05
    popularity_exponent: float = 1.0
    gamma: float = 0.5
    drift_alpha_share: float = 0.15
    drift_interest_share: float = 0.15
    oracle_ndcg: float = 0.25
    control: bool = False
    seed: int = 0


def generate(config: SyntheticConfig) -> RawDataset:
    """Draws a world and what its users chose in it.

    Args:
      config: sizes and laws.

    Returns:
      The data set; `truth` has alpha_start, alpha_end f32[U, M]; taste_start, taste_end i32[U, M]
      (topics); drift_kind i8[U] (0 none, 1 alpha, 2 interest); drift_time i32[U] (position of the
      first interaction after the drift, -1 if none); topic i32[N + 1]; e_true f32[N + 1, M, q];
      prototypes f32[topics, M, q]; popularity f32[N + 1]; beta, gamma f32[]; control bool[].

    Raises:
      InputError: a size or share is out of range, or no beta gives the wanted NDCG.
    """
    _check(config)
    rng = np.random.default_rng(config.seed)
    topic, e_true, prototypes = draw_items(config, rng)
    popularity = np.zeros(config.n_items + 1, np.float32)
    ranks = rng.permutation(config.n_items)
    popularity[1:] = (ranks + 10.0) ** -config.popularity_exponent
    users = draw_users(config, rng)

    start = directions(users["alpha_start"], users["taste_start"], prototypes, config.control)
    end = directions(users["alpha_end"], users["taste_end"], prototypes, config.control)
    flat = e_true.reshape(config.n_items + 1, -1)
    bias = log_popularity(popularity, config.gamma)
    beta = fit_beta(end, flat, bias, config.oracle_ndcg)

    lengths = users.pop("length")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    user = np.repeat(np.arange(config.n_users), lengths)
    position = np.arange(offsets[-1]) - offsets[user]
    drifted = (users["drift_kind"][user] != NO_DRIFT) & (position >= users["drift_time"][user])
    items = choose_items(
        np.concatenate([start, end]),
        flat,
        bias,
        beta,
        segment=user + config.n_users * drifted,
        uniform=rng.random(len(user)),
    )
    gaps = rng.exponential(36 * 3600.0, len(user)).astype(np.int64) + 1
    passed = np.cumsum(gaps)
    times = 1_600_000_000 + passed - np.repeat(passed[offsets[:-1]], lengths)

    catalogue = observe(config, topic, e_true, rng)
    interactions = Interactions(
        user_ids=np.char.add("u", _numbers(config.n_users)),
        items=items,
        offsets=offsets,
        times=times,
        n_items=config.n_items,
    )
    truth = {
        **users,
        "topic": topic,
        "e_true": e_true,
        "prototypes": prototypes,
        "popularity": popularity,
        "beta": np.asarray(beta, np.float32),
        "gamma": np.asarray(config.gamma, np.float32),
        "control": np.asarray(config.control),
    }
    notes = {
        "users_with_alpha_drift": int(np.sum(users["drift_kind"] == ALPHA_DRIFT)),
        "users_with_interest_drift": int(np.sum(users["drift_kind"] == INTEREST_DRIFT)),
        **count_missing(catalogue),
    }
    return RawDataset(interactions, catalogue, notes, truth)


def _check(config: SyntheticConfig) -> None:
    ranges = {
        "n_users": (1, np.inf),
        "n_items": (20, np.inf),
        "topics": (2, np.inf),
        "mean_length": (5, np.inf),
        "latent": (2, np.inf),
        "feature_width": (1, np.inf),
        "private_share": (0, 0.999),
        "missing_rate": (0, 0.9),
        "drift_alpha_share": (0, 1 - config.drift_interest_share),
        "drift_interest_share": (0, 1),
        "oracle_ndcg": (0.01, 0.9),
    }
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise InputError(f"synthetic.{name} = {value}: set it between {low:g} and {high:g}")
    if not config.modalities:
        raise InputError("synthetic.modalities = (): name at least one")
    if config.topics ** len(config.modalities) > LARGEST_TASTES:
        raise InputError(
            f"synthetic.topics = {config.topics}: {config.topics}^{len(config.modalities)} tastes "
            f"are too many for the oracle, which sums over at most {LARGEST_TASTES}; set fewer "
            "topics or modalities"
        )


def draw_items(
    config: SyntheticConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws topics and, per modality, unit vectors that mix a topic's and an item's own factors.

    Returns:
      topic int32[N + 1], row 0 is -1; e* float32[N + 1, M, q], row 0 is zero; topic prototypes
      float32[topics, M, q], unit norm.
    """
    shape = (len(config.modalities), config.latent)
    # A unit factor per topic, under a random projection, is a random direction per modality.
    prototypes = _unit(rng.standard_normal((config.topics, *shape), np.float32))
    topic = np.full(config.n_items + 1, -1, np.int32)
    topic[1:] = rng.integers(config.topics, size=config.n_items)
    own = rng.standard_normal((config.n_items, *shape), np.float32)
    own *= np.sqrt(config.private_share / config.latent, dtype=np.float32)
    shared = np.sqrt(1 - config.private_share, dtype=np.float32) * prototypes
    e_true = np.zeros((config.n_items + 1, *shape), np.float32)
    e_true[1:] = _unit(shared[topic[1:]] + own)
    return topic, e_true, prototypes


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def draw_users(config: SyntheticConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws weights, tastes, drifts and lengths; see `generate` for names and shapes."""
    n_users, n_modalities = config.n_users, len(config.modalities)
    alpha = rng.dirichlet(np.ones(n_modalities), n_users)
    taste = rng.integers(config.topics, size=(n_users, n_modalities))
    kind = rng.choice(
        3,
        n_users,
        p=[
            max(0.0, 1 - config.drift_alpha_share - config.drift_interest_share),
            config.drift_alpha_share,
            config.drift_interest_share,
        ],
    )
    if n_modalities == 1:
        kind[kind == ALPHA_DRIFT] = NO_DRIFT  # a single weight is 1 for ever

    alpha_end = alpha.copy()
    pending = np.flatnonzero(kind == ALPHA_DRIFT)
    while len(pending):
        alpha_end[pending] = rng.dirichlet(np.ones(n_modalities), len(pending))
        distance = jensen_shannon_distance(alpha[pending], alpha_end[pending])
        pending = pending[distance < DRIFT_DISTANCE]
    step = rng.integers(1, config.topics, size=taste.shape)  # never back to the same topic
    moved = (kind == INTEREST_DRIFT)[:, None]
    taste_end = np.where(moved, (taste + step) % config.topics, taste)

    shortest = SHORTEST_HISTORY + 2
    spread = 0.6  # of a log-normal: most users are short, some are long
    excess = rng.lognormal(-(spread**2) / 2, spread, n_users) * (config.mean_length - shortest)
    length = shortest + np.round(excess).astype(np.int64)
    needed = 2 * DRIFT_MARGIN + rng.integers(11, size=n_users)
    length = np.where(kind != NO_DRIFT, np.maximum(length, needed), length)
    time = rng.integers(DRIFT_MARGIN, np.maximum(length - DRIFT_MARGIN, DRIFT_MARGIN) + 1)
    return {
        "alpha_start": alpha.astype(np.float32),
        "alpha_end": alpha_end.astype(np.float32),
        "taste_start": taste.astype(np.int32),
        "taste_end": taste_end.astype(np.int32),
        "drift_kind": kind.astype(np.int8),
        "drift_time": np.where(kind == NO_DRIFT, -1, time).astype(np.int32),
        "length": length,
    }


def jensen_shannon_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Square root of the Jensen-Shannon divergence to base 2, between 0 and 1.

    Args:
      p: float[..., M], distributions.
      q: the same shape.

    Returns:
      float[...].
    """
    middle = (p + q) / 2

    def divergence(a: np.ndarray) -> np.ndarray:
        ratio = np.where(a > 0, a, 1) / np.where(a > 0, middle, 1)
        return np.sum(a * np.log2(ratio), axis=-1)

    return np.sqrt(np.maximum((divergence(p) + divergence(q)) / 2, 0))


def observe(
    config: SyntheticConfig, topic: np.ndarray, e_true: np.ndarray, rng: np.random.Generator
) -> Catalogue:
    """What is seen of the items: a linear map of e* per modality, noise, missing rows.

    No item lacks all modalities.
    """
    n_items, n_modalities = config.n_items, len(config.modalities)
    missing = rng.random((n_items, n_modalities)) < config.missing_rate
    bare = np.flatnonzero(missing.all(axis=1))
    missing[bare, rng.integers(n_modalities, size=len(bare))] = False
    vectors = {}
    for place, name in enumerate(config.modalities):
        view = rng.standard_normal((config.latent, config.feature_width), np.float32)
        view /= np.sqrt(np.float32(config.feature_width))  # keeps the signal's norm near 1
        table = np.full((n_items + 1, config.feature_width), np.nan, np.float32)
        noise = rng.standard_normal((n_items, config.feature_width), np.float32)
        noise *= np.float32(config.noise / np.sqrt(config.feature_width))
        table[1:] = e_true[1:, place] @ view + noise
        table[1:][missing[:, place]] = np.nan
        vectors[name] = table
    words = np.array(
        [
            TOPIC_WORDS[k % len(TOPIC_WORDS)] + ("" if k < len(TOPIC_WORDS) else str(k))
            for k in range(config.topics)
        ]
    )
    numbers = _numbers(n_items)
    return Catalogue(
        item_ids=np.concatenate([[""], np.char.add("i", numbers)]),
        titles=np.concatenate([[""], np.char.add(np.char.add(words[topic[1:]], " "), numbers)]),
        categories=np.concatenate([[""], words[topic[1:]]]),
        vectors=vectors,
        tokens={},
    )


def _numbers(count: int) -> np.ndarray:
    """str[count], "1" to "count"; no wider than needed, there may be tens of millions."""
    return np.arange(1, count + 1).astype(f"U{len(str(count))}")
