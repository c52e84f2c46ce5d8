"""From trained PMAT to semantic IDs: archetypes, their view of the items, codebook, drift."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.sequences import popularity, split_end, train_items
from semid_jax.models.codes import Centroids
from semid_jax.models.fusion import (
    Archetypes,
    ItemViews,
    assign_archetype,
    fuse,
    user_features,
)
from semid_jax.models.perceiver import without_weights
from semid_jax.models.pmat import Pmat, PmatConfig
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.fit import fit, fit_shared
from semid_jax.quantize.kmeans import fit_plain
from semid_jax.tokenizers.contexts import ContextConfig, choosing_contexts
from semid_jax.tokenizers.fused import principal, whitening
from semid_jax.train.readings import (
    Readings,
    fit_threshold,
    make_perceiver,
    no_readings,
    read_all,
    read_ends,
)
from semid_jax.train.tokenizer import Frozen, fit_pmat, freeze
from semid_jax.types import Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Everything the tokenize stage makes.

    Attributes:
      module: PMAT.
      frozen: its tables.
      archetypes: prototypes.
      points: float32[A, N + 1, D], z of all items under all archetypes.
      book: codebook.
      shared: of the digits that all archetypes share, which lie behind the others; None without.
      coarse: int32[A, N + 1], the write side.
      fine: uint8[A, N + 1, L].
      readings: of all users, before every interaction.
      threshold: float64[], of drift.
    """

    module: Pmat
    frozen: Frozen
    archetypes: Archetypes
    points: np.ndarray
    book: Codebook
    shared: Codebook | None
    coarse: np.ndarray
    fine: np.ndarray
    readings: Readings
    threshold: np.ndarray

    @functools.cached_property
    def views(self) -> ItemViews:
        """What it takes to see any item as any archetype does, and what users then ask for."""
        of = self.frozen
        content = jnp.concatenate([of.h, of.e], axis=-1)
        return ItemViews(content, of.mask, self.archetypes, of.table)

    @property
    def reads_users(self) -> bool:
        """Whether anything is said of a user: weights, or drifts."""
        return not self.module.config.uniform or bool(np.isfinite(self.threshold))

    @property
    def centroids(self) -> Centroids:
        """What the codes stand for, as S1 uses it; shared digits say nothing of z."""
        words = self.book.fine
        if self.shared is not None:
            words = jnp.pad(words, ((0, self.shared.digits), (0, 0), (0, 0)))
        return Centroids(self.book.coarse, self.book.rotation, words)


def fit_archetypes(
    module: Pmat, frozen: Frozen, alpha: np.ndarray, interest: np.ndarray, count: int, seed: int
) -> Archetypes:
    """Clusters users by weights and interest (design part 3.3); count = 1 is the crowd's mean.

    Args:
      module: PMAT.
      frozen: its tables.
      alpha: float32[U, M].
      interest: float32[U, D].
      count: A.
      seed: of k-means.
    """
    members = np.zeros(len(alpha), np.int64)
    count = min(count, len(alpha))
    if count > 1:
        points = np.asarray(user_features(jnp.asarray(alpha), jnp.asarray(interest)))
        centres = jnp.asarray(fit_plain(points, count, 25, seed))
        rough = Archetypes(
            centres[:, : alpha.shape[1]] / 2.0,
            centres[:, alpha.shape[1] :] / 0.5,
            jnp.zeros((count, interest.shape[1])),
        )
        members = np.asarray(assign_archetype(jnp.asarray(alpha), jnp.asarray(interest), rough))
    used = [members == a for a in range(count) if (members == a).any()]
    mean_alpha = jnp.asarray(np.stack([alpha[rows].mean(axis=0) for rows in used]))
    mean_interest = jnp.asarray(np.stack([interest[rows].mean(axis=0) for rows in used]))
    gate = module.apply(frozen.params, mean_interest, method=Pmat.gate)
    return Archetypes(mean_alpha, mean_interest, gate)


def view_items(frozen: Frozen, archetypes: Archetypes) -> np.ndarray:
    """float32[A, N + 1, D], z of every item under every archetype."""
    h, one = jnp.asarray(frozen.h), jax.jit(fuse)
    points = np.empty((len(archetypes.alpha), len(h), h.shape[-1]), np.float32)
    for a, own in enumerate(zip(archetypes.alpha, archetypes.gate, strict=True)):
        points[a] = one(h, frozen.mask, *own)
    return points


def beside_contexts(
    frozen: Frozen, crowd: Archetypes, contexts: np.ndarray, train_items: np.ndarray, width: int
) -> Frozen:
    """Items whose z has directions of contexts beside its own, each of variance 1 / (D + D_c).

    Whitening turns the directions that a gate stresses, so h takes the crowd's gate first.

    Args:
      frozen: PMAT's tables.
      crowd: one archetype.
      contexts: float32[N + 1, w], see `choosing_contexts`.
      train_items: bool[N + 1], items that may be seen.
      width: D_c.

    Returns:
      The same with h float32[N + 1, M, D + D_c], an item without a context having that of the
      mean, and a table float32[M, K, D + D_c] that asks of z what it did, contexts aside.
    """
    z = view_items(frozen, crowd)[0]
    mean, turn = whitening(z, train_items, z.shape[1])
    gated = (1.0 + crowd.gate[0]) * frozen.h
    own = (gated - jnp.asarray(mean, jnp.float32)) @ jnp.asarray(turn, jnp.float32)
    known = np.isfinite(contexts).all(axis=1)
    components = principal(np.nan_to_num(contexts), known, width) * known[:, None]
    padded = np.pad(components, ((0, 0), (0, width - components.shape[1])))
    beside = jnp.broadcast_to(jnp.asarray(padded)[:, None], (*own.shape[:2], width))
    scale = np.sqrt(own.shape[-1] + width)
    h = jnp.concatenate([own, beside], axis=-1) / scale * frozen.mask[..., None]
    table = scale * frozen.table @ jnp.asarray(np.linalg.pinv(turn).T, jnp.float32)
    return dataclasses.replace(frozen, h=h, table=jnp.pad(table, ((0, 0), (0, 0), (0, width))))


def ungated(archetypes: Archetypes, width: int) -> Archetypes:
    """The same archetypes where h has been gated, D' being `width`."""
    gate = jnp.zeros((len(archetypes.alpha), width))
    return Archetypes(archetypes.alpha, archetypes.interest, gate)


def train_frozen(
    features: ItemFeatures, interactions: Interactions, config: PmatConfig, width: int, seed: int
) -> tuple[Pmat, Frozen]:
    """Trains PMAT and encodes the catalogue."""
    params = fit_pmat(features, interactions, config, width, seed)
    module = Pmat(features.modalities, config, len(features.mask))
    return module, freeze(module, params, features, popularity(interactions), seed)


def of_vectors(config: PmatConfig) -> PmatConfig:
    """What PMAT's settings come to where the items' vectors are given: nobody is asked anything."""
    return dataclasses.replace(config, archetypes=1, uniform=True, gated=False, own=0.0, steps=0)


def make_tokenizer(
    features: ItemFeatures,
    interactions: Interactions,
    config: PmatConfig,
    quantize: QuantizeConfig,
    width: int,
    seed: int,
    fused: np.ndarray | None = None,
) -> Tokenizer:
    """The whole tokenize stage; everything is fitted on the train part.

    Where the items' vectors are given, PMAT is not trained: every user has the same weights and
    sees the same items, and only what is quantised differs from the static tokenizer. They have
    contexts beside them where PMAT's would.

    Args:
      features: normalised features.
      interactions: histories.
      config: PMAT.
      quantize: codebook.
      width: T.
      seed: of everything random here.
      fused: float32[N + 1, D], the items' vectors as another tokenizer makes them; None for PMAT.
    """
    if fused is not None:
        config = of_vectors(config)
    module, frozen = train_frozen(features, interactions, config, width, seed)
    if fused is not None:
        h = jnp.broadcast_to(jnp.asarray(fused)[:, None], frozen.h.shape)
        frozen = dataclasses.replace(frozen, h=h)
    known = split_end(interactions, "train")
    if config.uniform:
        frozen = dataclasses.replace(frozen, latents=without_weights(frozen.latents))
    perceiver = make_perceiver(frozen)
    alpha, interest = read_ends(perceiver, interactions, known)
    if config.uniform:
        alpha = np.full_like(alpha, 1 / alpha.shape[1])
    archetypes = fit_archetypes(module, frozen, alpha, interest, config.archetypes, seed)
    crowd = fit_archetypes(module, frozen, alpha, interest, 1, seed)
    known_items = train_items(interactions)
    if config.context:
        contexts = choosing_contexts(interactions, ContextConfig(steps=config.context_steps), seed)
        frozen = beside_contexts(frozen, crowd, contexts, known_items, config.context)
        archetypes, crowd = (ungated(of, config.points_width) for of in (archetypes, crowd))
    points = view_items(frozen, archetypes)
    quantize = dataclasses.replace(quantize, seed=quantize.seed + seed)
    book, coarse, fine = fit(points, known_items, quantize)
    shared = None
    if quantize.shared:
        shared, digits = fit_shared(view_items(frozen, crowd)[0], known_items, quantize)
        digits = np.broadcast_to(digits, (*fine.shape[:2], quantize.shared))
        fine = np.concatenate([fine, digits], axis=-1)
    if fused is not None:  # nobody was asked what they care for
        threshold, readings = np.inf, no_readings(perceiver, interactions)
    else:
        threshold = fit_threshold(perceiver, archetypes, interactions, config, seed)
        settings = threshold, config.window, config.hold
        readings = read_all(perceiver, archetypes, interactions, *settings)
        if config.uniform:
            readings.alpha[:] = readings.alpha_short[:] = 1 / alpha.shape[1]
    return Tokenizer(
        module,
        frozen,
        archetypes,
        points,
        book,
        shared,
        np.asarray(coarse),
        np.asarray(fine),
        readings,
        np.asarray(threshold),
    )


def start_codes(params: Any, tokenizer: Tokenizer, seed: int) -> Any:
    """Starts the generator's code embeddings from the codebook's centroids.

    A random projection keeps the distances between codewords; coarse codes are centred, fine ones
    become unit vectors where they are used.

    Args:
      params: of the generator, as initialised.
      tokenizer: of the run.
      seed: of the projection.
    """
    inner = dict(params["params"])
    coarse_key, fine_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 11))
    coarse, fine = inner["coarse_codes"], inner["fine_codes"]

    def project(words: jax.Array, width: int, key: jax.Array) -> jax.Array:
        words = words - jnp.mean(words, axis=-2, keepdims=True)
        out = words @ jax.random.normal(key, (words.shape[-1], width))
        return out / jnp.maximum(jnp.std(out), 1e-6)

    book, shared = tokenizer.book, tokenizer.shared
    inner["coarse_codes"] = 0.1 * project(book.coarse, coarse.shape[1], coarse_key)
    digits = project(book.fine, fine.shape[2], fine_key)
    if shared is not None:
        more = project(shared.fine, fine.shape[2], jax.random.fold_in(fine_key, 1))
        more = jnp.pad(more, ((0, 0), (0, book.codewords - shared.codewords), (0, 0)))
        digits = jnp.concatenate([digits, more])
    inner["fine_codes"] = digits
    return {**params, "params": inner}
