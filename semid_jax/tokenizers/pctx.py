"""Pctx: an item has several IDs, and the history before it says which one is meant.

"Pctx: Tokenizing Personalized Context for Generative Recommendation" (ICLR 2026, 2510.21276),
sections 3.1 to 3.3: contexts of every occurrence, k-means of them for each item, fused with the
features and quantised by residual k-means, rare IDs merged. What the paper adds to the generator is
left out: other IDs of a history's items in training, and a vote of five passes.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from semid_jax.data.sequences import popularity, train_mask
from semid_jax.quantize import codebook, opq
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import check_codewords
from semid_jax.tokenizers.contexts import ContextConfig, read_contexts, sums
from semid_jax.tokenizers.fused import Contexts, Fused, principal, side_by_side
from semid_jax.types import Interactions, ItemFeatures

CHUNK = 4096  # occurrences whose distances are made at once


@dataclasses.dataclass(frozen=True)
class PctxConfig(ContextConfig):
    """Pctx; groups, fusion and merging as the paper has them for Games.

    Attributes:
      groups: T, items are parted in so many groups by how often they occur.
      start: contexts of an item of the rarest group.
      slope: contexts more in each further group.
      shape: of the gamma density that says how large the groups are.
      alpha: how much the context counts in the fused vector, 0 to 1.
      context_width: principal components of contexts.
      text_width: principal components of features.
      levels: codes of an ID.
      codewords: K of each.
      rare: an ID used in a smaller share of its item's occurrences is merged into its nearest.

    The others are of the encoder of contexts, see `ContextConfig`.
    """

    groups: int = 11
    start: int = 2
    slope: int = 4
    shape: float = 4.6
    alpha: float = 0.5
    context_width: int = 64
    text_width: int = 128
    levels: int = 3
    codewords: int = 256
    rare: float = 0.2

    def __post_init__(self) -> None:
        """Refuses codes that do not fit a byte."""
        check_codewords("pctx", self.codewords)


def fit(features: ItemFeatures, interactions: Interactions, config: PctxConfig, seed: int) -> Fused:
    """Trains Pctx's tokenizer.

    Args:
      features: normalised.
      interactions: histories; later parts than train are only read, never learned from.
      config: settings.
      seed: of everything random here.

    Returns:
      An item's vector is the mean of its contexts' fused ones, by how often they occur. `contexts`
      has the IDs, several of an item, and which one every interaction means.
    """
    contexts = read_contexts(interactions, config, seed)
    counts = popularity(interactions)
    number = count_contexts(counts, config)
    shown = train_mask(interactions)
    of_train = contexts[shown], interactions.items[shown]
    centroids, first = item_kmeans(*of_train, number, 10, seed)
    owner = np.repeat(np.arange(len(number)), number)
    own = nearest_own(contexts, interactions.items, centroids, first, number)
    used = np.bincount(own[shown], minlength=len(owner))

    seen = counts[owner] > 0
    text = principal(side_by_side(features), counts > 0, config.text_width)
    vectors = np.concatenate(
        [
            config.alpha * principal(centroids, seen, config.context_width),
            (1 - config.alpha) * text[owner],
        ],
        axis=1,
    ).astype(np.float32)
    book = fit_levels(vectors[seen], config, seed)
    coarse, fine = (np.asarray(codes) for codes in codebook.encode(book, vectors))
    codes = np.concatenate([coarse[:, None], fine], axis=1)
    label = np.unique(codes, axis=0, return_inverse=True)[1].ravel()
    label = merge_rare(label, owner, used, centroids, first, number, config.rare)

    # An ID is an item with a label; its codes are those of any context of the label.
    key = owner * (label.max() + 1) + label
    _, some, place = np.unique(key, return_index=True, return_inverse=True)
    place = place.ravel()
    of_label = np.unique(label, return_index=True)[1]
    named = np.searchsorted(np.unique(label), label[some])
    weight = np.maximum(used, 1e-3)
    return Fused(
        _means(vectors, owner, weight, len(number)),
        book,
        Contexts(
            points=_means(vectors, place, weight, len(some)),
            coarse=codes[of_label[named], 0].astype(np.int32),
            fine=codes[of_label[named], 1:].astype(np.uint8),
            owner=owner[some].astype(np.int32),
            uses=place[own].astype(np.int32),
        ),
    )


def _means(vectors: np.ndarray, group: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    """float32[groups, D], weighted means; group 0, of item 0, is zero."""
    entry = (weight.astype(np.float64), (group, np.arange(len(group))))
    total = scipy.sparse.csr_array(entry, (groups, len(group))) @ vectors
    total /= np.bincount(group, weights=weight, minlength=groups)[:, None]
    total[0] = 0
    return total.astype(np.float32)


def count_contexts(counts: np.ndarray, config: PctxConfig) -> np.ndarray:
    """How many contexts each item is given.

    Items in the order of how often they occur are parted in groups, whose sizes go by a gamma
    density; group i gets start + i slope contexts, but no item more than it has occurrences.

    Args:
      counts: int64[N + 1], training interactions per item.
      config: settings.

    Returns:
      int64[N + 1], 1 at least.
    """
    at = np.arange(1.0, config.groups + 1)
    density = at ** (config.shape - 1) * np.exp(-at)  # of gamma, but for its constant
    border = np.round(np.cumsum(density / density.sum()) * (len(counts) - 1))
    order = np.argsort(counts[1:], kind="stable")
    group = np.empty(len(order), np.int64)
    group[order] = np.searchsorted(border, np.arange(len(order)), side="right")
    wanted = config.start + np.minimum(group, config.groups - 1) * config.slope
    return np.concatenate([[1], np.clip(wanted, 1, np.maximum(counts[1:], 1))])


def item_kmeans(
    x: np.ndarray, item: np.ndarray, number: np.ndarray, iterations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """k-means of every item's own occurrences, all items at once.

    Args:
      x: float32[n, w], occurrences.
      item: int32[n], whose they are.
      number: int64[N + 1], centroids of each item.
      iterations: Lloyd steps.
      seed: of the start, occurrences drawn without repeats.

    Returns:
      float32[sum of number, w], item by item; int64[N + 1], where each item's begin. An item that
      does not occur has the mean of all.
    """
    first = np.cumsum(number) - number
    order = np.lexsort((np.random.default_rng((seed, 22)).random(len(item)), item))
    begins = np.searchsorted(item[order], np.arange(len(number)))
    rank = np.arange(len(order)) - begins[item[order]]
    start = rank < number[item[order]]
    centroids = np.repeat(x.mean(axis=0, keepdims=True), number.sum(), axis=0)
    centroids[first[item[order]][start] + rank[start]] = x[order[start]]
    for _ in range(iterations):
        own = nearest_own(x, item, centroids, first, number)
        size = np.bincount(own, minlength=len(centroids))
        filled = size > 0
        total = sums(x, own, len(centroids))
        centroids[filled] = total[filled] / size[filled, None].astype(np.float32)
    return centroids, first


def nearest_own(
    x: np.ndarray, item: np.ndarray, centroids: np.ndarray, first: np.ndarray, number: np.ndarray
) -> np.ndarray:
    """int64[n], the nearest of each occurrence's own item's centroids, see `item_kmeans`."""
    most = int(number.max())
    size = min(CHUNK, len(x))
    out, words = np.zeros(len(x), np.int64), jnp.asarray(centroids)
    for at in range(0, len(x), size):
        rows = np.minimum(np.arange(at, at + size), len(x) - 1)
        own = first[item[rows]], number[item[rows]]
        out[rows] = _nearest(x[rows], *own, words, most)
    return out


@functools.partial(jax.jit, static_argnames=("most",))
def _nearest(
    x: jax.Array, begin: jax.Array, count: jax.Array, centroids: jax.Array, most: int
) -> jax.Array:
    """The nearest of centroids[begin : begin + count] to each row of x; count is at most `most`."""
    slot = jnp.arange(most)
    words = centroids[jnp.minimum(begin[:, None] + slot, len(centroids) - 1)]
    distance = jnp.sum(words**2, -1) - 2.0 * jnp.einsum("nw,nsw->ns", x, words)
    return begin + jnp.argmin(jnp.where(slot < count[:, None], distance, jnp.inf), axis=1)


def fit_levels(vectors: np.ndarray, config: PctxConfig, seed: int) -> Codebook:
    """Residual k-means of fused vectors."""
    K = max(1, min(config.codewords, len(vectors) // 4))
    words = jnp.asarray(opq.fit_levels(vectors, config.levels, K, 25, seed))
    eye = jnp.eye(vectors.shape[1])
    return Codebook(words[0], eye, words[1:], kind="residual", absolute=False)


def merge_rare(
    label: np.ndarray,
    owner: np.ndarray,
    used: np.ndarray,
    centroids: np.ndarray,
    first: np.ndarray,
    number: np.ndarray,
    rare: float,
) -> np.ndarray:
    """Gives contexts of an item's rare IDs that of the nearest context with another ID.

    Args:
      label: int64[n], which ID each context has.
      owner: int64[n], its item.
      used: int64[n], training occurrences.
      centroids: float32[n, w].
      first: int64[N + 1], where an item's contexts begin.
      number: int64[N + 1], how many it has.
      rare: share of an item's occurrences below which an ID is merged, the rarest first.

    Returns:
      int64[n], labels after merging.
    """
    label = label.copy()
    total = np.maximum(np.bincount(owner, weights=used, minlength=len(number)), 1)
    slot = np.arange(int(number.max()))
    for _ in range(int(number.max())):
        group = np.unique(owner * (label.max() + 1) + label, return_inverse=True)[1].ravel()
        size = np.bincount(group, weights=used)
        of = np.zeros(len(size), np.int64)
        of[group] = owner
        groups = np.bincount(of, minlength=len(number))
        order = np.lexsort((size, of))
        rarest = order[np.searchsorted(of[order], np.arange(len(number)))]
        goes = (groups[of[rarest]] > 1) & (size[rarest] < rare * total[of[rarest]])
        moving = np.flatnonzero(np.isin(group, rarest[goes]))
        if not len(moving):
            break
        near = np.minimum(first[owner[moving]][:, None] + slot, len(label) - 1)
        other = (slot < number[owner[moving]][:, None]) & (group[near] != group[moving][:, None])
        gap = ((centroids[near] - centroids[moving][:, None]) ** 2).sum(-1)
        best = np.argmin(np.where(other, gap, np.inf), axis=1)
        label[moving] = label[near[np.arange(len(moving)), best]]
    return label
