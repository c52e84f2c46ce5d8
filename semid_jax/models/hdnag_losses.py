"""The losses of HDNAG (design part 5), each a sum over loss-bearing positions.

Sums, not means: the step divides by the number of positions on all devices, so that the curve is
the same on any number of them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from semid_jax.models.hdnag import CodeTables


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
      coarse: cross-entropy of the coarse code.
      fine: mean cross-entropy of the fine digits given the true cell.
      item: item-level cross-entropy on S1.
      dense: item-level cross-entropy on S1 and the dense term, where the model has one.
      alignment: hierarchical alignment of the coarse head to the item softmax.
      validity: takes probability from codes that no item has.
      candidates: items sampled for the item-level loss; all items where there are no more.
      fakes: code combinations without an item, per group, for the validity term.
      fine_digits: digits that the fine loss looks at in a step, drawn anew every step; all digits
        where there are no more.
    """

    coarse: float = 0.2
    fine: float = 0.2
    item: float = 1.0
    dense: float = 1.0
    alignment: float = 0.5
    validity: float = 0.05
    candidates: int = 1024
    fakes: int = 64
    fine_digits: int = 8


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
      fine_query: float32[..., L, d], h_j(s) / tau_j.
      tables: code embeddings.
      cell: int32[...].
      fine: uint8[..., L].
      weight: float32[...].
      digits: int32[l], those that count; a uniform sample leaves the expectation as it is.

    Returns:
      float32[], sum.
    """
    condition = tables.condition[:, digits][cell]
    codewords = tables.fine[digits]
    logits = jnp.einsum("...ld,lkd->...lk", fine_query[..., digits, :] + condition, codewords)
    true = jnp.take_along_axis(logits, fine[..., digits, None].astype(jnp.int32), -1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - true
    return jnp.sum(jnp.mean(losses, axis=-1) * weight)


def item_scores(
    query: jax.Array, target_vectors: jax.Array, candidate_vectors: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Inner products with the true item and with shared candidates, S1 or the dense term.

    Args:
      query: float32[G, n, F], queries by group.
      target_vectors: float32[G, n, F].
      candidate_vectors: float32[G, S, F], one set per group.

    Returns:
      (float32[G, n], float32[G, n, S]).
    """
    target = jnp.sum(query * target_vectors, axis=-1)
    return target, jnp.einsum("gnf,gsf->gns", query, candidate_vectors)


def item_loss(
    target: jax.Array, scores: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Item-level cross-entropy on S1.

    Args:
      target: float32[G, n], score of the true item.
      scores: float32[G, n, S], corrected for sampling; -inf where the candidate is the target.
      weight: float32[G, n].

    Returns:
      (float32[], sum; float32[G, n], log of the sum over target and candidates).
    """
    log_total = jnp.logaddexp(target, jax.nn.logsumexp(scores, axis=-1))
    return jnp.sum((log_total - target) * weight), log_total


def alignment_loss(
    coarse_logits: jax.Array,
    target: jax.Array,
    scores: jax.Array,
    log_total: jax.Array,
    target_cell: jax.Array,
    candidate_cell: jax.Array,
    weight: jax.Array,
) -> jax.Array:
    """KL(cell masses of the item softmax, no gradient || coarse head): hierarchical alignment.

    Args:
      coarse_logits: float32[G, n, C].
      target: float32[G, n].
      scores: float32[G, n, S].
      log_total: float32[G, n].
      target_cell: int32[G, n].
      candidate_cell: int32[G, S].
      weight: float32[G, n].

    Returns:
      float32[], sum.
    """
    cells = coarse_logits.shape[-1]
    p = jnp.exp(scores - log_total[..., None])
    mass = jnp.einsum("gns,gsc->gnc", p, jax.nn.one_hot(candidate_cell, cells))
    mass += jnp.exp(target - log_total)[..., None] * jax.nn.one_hot(target_cell, cells)
    mass = jax.lax.stop_gradient(mass)
    log_q = jax.nn.log_softmax(coarse_logits)
    kl = jnp.sum(mass * (jnp.log(mass + 1e-9) - log_q), axis=-1)
    return jnp.sum(kl * weight)


def fake_codes(
    key: jax.Array, coarse: jax.Array, fine: jax.Array, fakes: int
) -> tuple[jax.Array, jax.Array]:
    """Code combinations that, almost surely, no item has: half the digits come from other items.

    Args:
      key: random key.
      coarse: int32[G, S] of real items.
      fine: uint8[G, S, L].
      fakes: how many per group.

    Returns:
      (int32[G, fakes], uint8[G, fakes, L]).
    """
    _, S, L = fine.shape
    base_key, other_key, swap_key = jax.random.split(key, 3)
    base = jax.random.randint(base_key, (fakes,), 0, S)
    other = jax.random.randint(other_key, (fakes, L), 0, S)
    swap = jax.random.bernoulli(swap_key, 0.5, (fakes, L))
    mixed = fine[:, other, jnp.arange(L)]
    return coarse[:, base], jnp.where(swap, mixed, fine[:, base])


def validity_loss(
    query: jax.Array, fake_vectors: jax.Array, log_total: jax.Array, weight: jax.Array
) -> jax.Array:
    """-log of the share of probability that valid codes keep against fake ones.

    Args:
      query: float32[G, n, F].
      fake_vectors: float32[G, V, F].
      log_total: float32[G, n], log mass of the valid candidates.
      weight: float32[G, n].

    Returns:
      float32[], sum.
    """
    fake = jax.nn.logsumexp(jnp.einsum("gnf,gvf->gnv", query, fake_vectors), axis=-1)
    return jnp.sum(jax.nn.softplus(fake - log_total) * weight)
