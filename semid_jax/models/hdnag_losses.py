"""The losses of HDNAG (design part 5), each a sum over loss-bearing positions.

Sums, not means: the step divides by the number of positions on all devices, so that the curve is
the same on any number of them. What has a number for every item or codeword is made a chunk of
positions at a time, see `chunked`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.chunked import chunk_rows, chunked_loss, chunked_losses
from semid_jax.models.codes import CodeTables, CodeVectors
from semid_jax.models.item_sums import (
    LANES,
    Catalogue,
    CatalogueOfS2,
    Learned,
    LearnedOfS2,
    Places,
    PlacesOfS2,
    item_sums,
)
from semid_jax.models.rounding import product_dtype

NEVER = 1e9  # subtracted from the score of what must not count


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
      coarse: cross-entropy of the coarse code.
      fine: mean cross-entropy of the fine digits given the true cell.
      item: item-level cross-entropy on S1.
      dense: item-level cross-entropy on S2, where the model has a dense term.
      alignment: hierarchical alignment of the coarse head to the item softmax.
      validity: takes probability from codes that no item has.
      candidates: items sampled for the item-level losses; all items where there are no more.
      fakes: code combinations without an item, per group, for the validity term.
      fine_digits: digits that the fine loss looks at in a step, drawn anew every step; all digits
        where there are no more.
      products: what the factors of the item-level losses' products are rounded to, see `rounding`;
        "auto" is bfloat16 on accelerators and on CPUs with AMX, float32 elsewhere.
    """

    coarse: float = 0.2
    fine: float = 0.2
    item: float = 1.0
    dense: float = 1.0
    alignment: float = 0.5
    validity: float = 0.05
    candidates: int = 20_000
    fakes: int = 64
    fine_digits: int = 8
    products: str = "float32"


@struct.dataclass
class Candidates:
    """The items of an item-level softmax, all of them or a sample that stands for all.

    Attributes:
      ids: int32[S], ascending; of equal ones all but the first have no count.
      log_count: float32[S], log of how many times an item is expected in a sample, less log of how
        many times it is in this one; NEVER where it has no count.
    """

    ids: jax.Array
    log_count: jax.Array


def coarse_loss(coarse_logits: jax.Array, cell: jax.Array, weight: jax.Array) -> jax.Array:
    """Cross-entropy of the true cell.

    Args:
      coarse_logits: float32[..., C], a_c(s).
      cell: int32[...].
      weight: float32[...].

    Returns:
      float32[], sum.
    """
    log_p = jax.nn.log_softmax(coarse_logits)
    return -jnp.sum(jnp.take_along_axis(log_p, cell[..., None], -1)[..., 0] * weight)


def sample_digits(key: jax.Array, digits: int, count: int) -> jax.Array:
    """The digits of one step's fine loss: `count` different ones, or all of them.

    Args:
      key: the same on all devices.
      digits: L.
      count: how many.

    Returns:
      int32[min(L, count)].
    """
    if digits <= count:
        return jnp.arange(digits)
    return jax.random.permutation(key, digits)[:count]


def fine_loss(
    fine_query: jax.Array,
    tables: CodeTables,
    cell: jax.Array,
    fine: jax.Array,
    weight: jax.Array,
    digits: jax.Array,
) -> jax.Array:
    """Mean over digits of the cross-entropy of the true codeword, given the true cell.

    Args:
      fine_query: float32[n, L, d + d_z], of `Generator.query`.
      tables: code embeddings.
      cell: int32[n].
      fine: uint8[n, L].
      weight: float32[n].
      digits: int32[l], those that count; a uniform sample leaves the expectation as it is.

    Returns:
      float32[], sum.
    """

    def losses(
        shared: tuple[jax.Array, jax.Array], query: jax.Array, true: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        codewords, condition = shared
        cell, fine = true
        query = query.at[..., : condition.shape[-1]].add(condition[cell])
        logits = jnp.einsum("nld,lkd->lnk", query, codewords)
        own = jnp.take_along_axis(logits, fine.T.astype(jnp.int32)[..., None], -1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - own, axis=0)

    shared = tables.fine[digits], tables.condition[:, digits]
    rows = chunk_rows(len(digits) * tables.fine.shape[1], len(weight))
    query, true = fine_query[:, digits], (cell, fine[:, digits])
    return chunked_loss(losses, rows, shared, query, true, weight)


@struct.dataclass
class Dense:
    """What S2 adds to S1, of the candidates.

    Attributes:
      y: float32[S, D].
      likeness_by: k, float32[M].
      repeat: rho, float32[].
    """

    y: jax.Array
    likeness_by: jax.Array
    repeat: jax.Array


@struct.dataclass
class Asked:
    """Positions of an item-level loss.

    Attributes:
      states: float32[n, D], s.
      own: vectors of the true items, [n, ...].
      coarse_logits: float32[n, C].
      own_y: y of the true items, float32[n, D]; None where S1 is all there is.
    """

    states: jax.Array
    own: CodeVectors
    coarse_logits: jax.Array
    own_y: jax.Array | None = None


@struct.dataclass
class Past:
    """What S2 reads of the histories up to these positions.

    Attributes:
      taste: float32[n, M, D_z], p_m.
      own_likeness: float32[n, M], alpha~[i, m] <p_m, e[i, m]> of the target.
      history: int32[n, T], the items, each at most once, the rest 0.
    """

    taste: jax.Array
    own_likeness: jax.Array
    history: jax.Array


@struct.dataclass
class Known:
    """What no gradient changes at these positions.

    Attributes:
      target: int32[n].
      cell: int32[n], of the target.
      interest: float32[n, D_z], p.
      past: None where S1 is all there is.
    """

    target: jax.Array
    cell: jax.Array
    interest: jax.Array
    past: Past | None = None


@struct.dataclass
class Fixed:
    """What no gradient changes of the candidates.

    Attributes:
      candidates: S items.
      masses: float32[S, C], their one-hot cells.
      e: float32[S, M, D_z], alpha~[i, m] e[i, m]; None where S1 is all there is.
    """

    candidates: Candidates
    masses: jax.Array
    e: jax.Array | None = None


def item_losses(
    config: LossConfig,
    fixed: Fixed,
    vectors: CodeVectors,
    fakes: CodeVectors,
    dense: Dense | None,
    asked: Asked,
    known: Known,
    weight: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Item-level cross-entropies on S1 and S2, hierarchical alignment and validity, together.

    All read the same scores, which are made once, see `item_sums`. Alignment is KL(cell masses of
    the softmax on the score that ranks, S2 where there is one, no gradient || coarse head), so that
    the cells which the head likes are those of the items that rank. Validity is -log of the share
    of probability that the candidates keep against fake codes.

    Args:
      config: weights.
      fixed: of S candidates.
      vectors: of the candidates.
      fakes: of fake codes, V.
      dense: of the candidates; None where S1 is all there is.
      asked: n positions.
      known: of the positions.
      weight: float32[n].

    Returns:
      The weighted sum of all, and item_loss, alignment_loss, validity_loss and, under S2,
      dense_loss, float32[] each.
    """

    def losses(
        shared: tuple[Learned, CodeVectors],
        catalogue: Catalogue,
        asked: Asked,
        others: tuple[Known, Places],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        (learned, fakes), (known, places) = shared, others
        own1 = _own_score(asked, known)
        own2 = own1
        if learned.of_s2 is not None:
            own2 = own1 + _own_dense(asked, known, learned.of_s2)
        r1, r2, mass = item_sums(asked.states, own1, own2, learned, catalogue, places)
        fake = jax.nn.logsumexp(_scores(asked, known, fakes), axis=-1)
        validity = jax.nn.softplus(fake - own1 - r1)
        total = config.item * r1 + config.validity * validity
        parts = {"item_loss": r1, "validity_loss": validity}
        if learned.of_s2 is not None:
            total += config.dense * r2
            parts["dense_loss"] = r2
        of_own = jnp.exp(-jax.lax.stop_gradient(r2))
        mass = jax.lax.stop_gradient(mass).at[jnp.arange(len(r1)), known.cell].add(of_own)
        log_q = jax.nn.log_softmax(asked.coarse_logits)
        parts["alignment_loss"] = jnp.sum(mass * (jnp.log(mass + 1e-9) - log_q), axis=-1)
        total += config.alignment * parts["alignment_loss"]
        return total, parts

    catalogue = _read(product_dtype(config.products), fixed, vectors, dense)
    # Scores and what is kept of them, rounded: 128 rows of 12,101 items are the best on two cores.
    rows = chunk_rows(len(catalogue.ids) * 4 // 3, len(weight))
    shared = _learned(len(catalogue.ids), vectors, dense), fakes
    others = known, _places(fixed.candidates.ids, len(catalogue.ids), known)
    made: tuple[jax.Array, dict[str, jax.Array]] = chunked_losses(
        losses, rows, shared, catalogue, asked, others, weight
    )
    return made


def _read(dtype: jnp.dtype, fixed: Fixed, vectors: CodeVectors, dense: Dense | None) -> Catalogue:
    """The candidates as `item_sums` reads them."""
    ids = fixed.candidates.ids
    more = -len(ids) % LANES
    vectors, dense = jax.lax.stop_gradient((vectors, dense))

    def padded(a: jax.Array, value: float = 0.0) -> jax.Array:
        return jnp.pad(a, ((0, more), *[(0, 0)] * (a.ndim - 1)), constant_values=value)

    def rounded(a: jax.Array) -> jax.Array:
        return padded(a).astype(dtype)

    x = rounded(vectors.x)
    of_s2 = None
    if dense is not None and fixed.e is not None:
        of_s2 = CatalogueOfS2(rounded(dense.y), jnp.moveaxis(rounded(fixed.e), 1, 0))
    return Catalogue(
        ids=padded(ids),
        base=padded(vectors.bias - fixed.candidates.log_count, -NEVER),
        x=x,
        xm=jnp.concatenate([x, rounded(vectors.m)], axis=1),
        masses=rounded(fixed.masses),
        of_s2=of_s2,
    )


def _learned(size: int, vectors: CodeVectors, dense: Dense | None) -> Learned:
    """What is differentiated of the candidates, padded to `size`."""

    def turned(a: jax.Array) -> jax.Array:
        return jnp.pad(a, ((0, size - len(a)), (0, 0))).T

    xm_bias = turned(jnp.concatenate([vectors.x, vectors.m, vectors.bias[:, None]], axis=1))
    if dense is None:
        return Learned(xm_bias)
    return Learned(xm_bias, LearnedOfS2(turned(dense.y), dense.likeness_by, dense.repeat))


def _places(ids: jax.Array, size: int, known: Known) -> Places:
    """What no gradient changes at the positions, histories as places among the candidates."""
    if known.past is None:
        return Places(known.target, known.interest)
    history = known.past.history
    place = jnp.searchsorted(ids, history)
    found = ids[jnp.minimum(place, len(ids) - 1)] == history
    of_s2 = PlacesOfS2(known.past.taste, jnp.where(found, place, size))
    return Places(known.target, known.interest, of_s2)


def _scores(asked: Asked, known: Known, vectors: CodeVectors) -> jax.Array:
    """S1, float32[n, V], of n positions and V codes."""
    return asked.states @ vectors.x.T + known.interest @ vectors.m.T + vectors.bias


def _own_score(asked: Asked, known: Known) -> jax.Array:
    """S1 of the true items, float32[n]."""
    of_state = jnp.sum(asked.states * asked.own.x, axis=-1)
    return of_state + jnp.sum(known.interest * asked.own.m, axis=-1) + asked.own.bias


def _own_dense(asked: Asked, known: Known, learned: LearnedOfS2) -> jax.Array:
    """What S2 adds to the scores of the true items, float32[n]."""
    past, own_y = known.past, asked.own_y
    if past is None or own_y is None:
        raise ValueError("S2 needs its own part of every argument")
    again = jnp.any(past.history == known.target[:, None], axis=1)
    likeness = past.own_likeness @ learned.likeness_by
    return jnp.sum(asked.states * own_y, axis=-1) + likeness + learned.repeat * again


def fake_codes(
    key: jax.Array, coarse: jax.Array, fine: jax.Array, fakes: int
) -> tuple[jax.Array, jax.Array]:
    """Code combinations that, almost surely, no item has: half the digits come from other items.

    Args:
      key: random key.
      coarse: int32[S] of real items.
      fine: uint8[S, L].
      fakes: how many.

    Returns:
      (int32[fakes], uint8[fakes, L]).
    """
    S, L = fine.shape
    base_key, other_key, swap_key = jax.random.split(key, 3)
    base = jax.random.randint(base_key, (fakes,), 0, S)
    other = jax.random.randint(other_key, (fakes, L), 0, S)
    swap = jax.random.bernoulli(swap_key, 0.5, (fakes, L))
    mixed = fine[other, jnp.arange(L)]
    return coarse[base], jnp.where(swap, mixed, fine[base])
