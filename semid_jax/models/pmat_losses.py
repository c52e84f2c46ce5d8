"""The losses that teach PMAT (design part 3.5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from semid_jax.models.encoders import unit


def next_item_loss(
    target_score: jax.Array, scores: jax.Array, log_q: jax.Array, hit: jax.Array, weight: jax.Array
) -> jax.Array:
    """Cross-entropy of the true next item against sampled ones, corrected for how they were drawn.

    Args:
      target_score: float32[n].
      scores: float32[n, S] of the sampled candidates.
      log_q: float32[S], log expected count of each candidate in the sample.
      hit: bool[n, S], candidate is the target (left out).
      weight: float32[n].

    Returns:
      float32[], weighted mean (Bengio and Senecal 2008; Yi et al. 2019).
    """
    negatives = jnp.where(hit, -1e9, scores - log_q)
    logits = jnp.concatenate([target_score[:, None], negatives], axis=1)
    losses = jax.nn.logsumexp(logits, axis=1) - target_score
    return jnp.sum(losses * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def contrast(left: jax.Array, right: jax.Array, temperature: float = 0.1) -> jax.Array:
    """InfoNCE: row i of `left` belongs to row i of `right` (van den Oord et al. 2018).

    Args:
      left: float32[n, D].
      right: float32[n, D].
      temperature: divides the cosines.

    Returns:
      float32[], mean over rows.
    """
    logits = unit(left) @ unit(right).T / temperature
    labels = jnp.arange(left.shape[0])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def balance_loss(alpha: jax.Array, weight: jax.Array) -> jax.Array:
    """Keeps alpha away from its two collapses.

    One term is the relative entropy of the uniform distribution to the mean alpha (all users on one
    modality); the other asks alpha to differ between users (all users uniform).

    Args:
      alpha: float32[n, M].
      weight: float32[n].

    Returns:
      float32[], zero for M = 1.
    """
    modalities = alpha.shape[-1]
    if modalities == 1:
        return jnp.zeros(())
    w = weight / jnp.maximum(jnp.sum(weight), 1.0)
    mean = jnp.sum(alpha * w[:, None], axis=0)
    one_modality = -jnp.mean(jnp.log(modalities * mean + 1e-6))
    deviation = jnp.sqrt(jnp.sum((alpha - mean) ** 2 * w[:, None], axis=0) + 1e-6)
    uniform = jnp.mean(jax.nn.relu(0.1 - deviation)) / 0.1
    return one_modality + uniform
