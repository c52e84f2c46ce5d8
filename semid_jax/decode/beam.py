"""Constrained beam search: codes one after another, and only codes that items have.

Batched, with static shapes: every hypothesis is a node of the prefix tree, and a level reads only
the children of the nodes it stands on. What a hypothesis has computed (its own keys and values)
moves with it; what all hypotheses of a user share is never copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.topk import largest, top_k_ties
from semid_jax.decode.trie import Trie

# (own caches [B, b, ...], codes int32[B, b] of a level, the level) -> (logits float32[B, b, K] of
# the next level, own caches).
Step = Callable[[Any, jax.Array, int], tuple[jax.Array, Any]]


def beam_search(
    trie: Trie,
    logits: jax.Array,
    own: Any,
    step: Step,
    beam: int,
    k: int,
    constrained: bool = False,
) -> Retrieved:
    """The items of the most probable codes that a beam finds.

    Args:
      trie: of the catalogue.
      logits: float32[B, K], of the first level.
      own: caches that the b hypotheses will have, before any code, arrays [B, b, ...].
      step: the model.
      beam: b, hypotheses kept.
      k: items returned, at most b.
      constrained: whether a code's probability is among the children of a node, or among all K.

    Returns:
      items, log probabilities, and how many leaves were looked at.
    """
    B = len(logits)
    logits = logits[:, None]
    score, node = jnp.zeros((B, 1)), jnp.zeros((B, 1), jnp.int32)  # one hypothesis: the root
    for level in range(trie.levels):
        found, edge = _children(trie, level, score, node, logits, constrained)
        width, shape = edge.shape[-1], (B, -1)
        found, edge = found.reshape(shape), edge.reshape(shape)
        if level == trie.levels - 1:
            items, scores = top_k_ties(found, trie.item[edge], k)
            looked = jnp.sum(found > -jnp.inf, axis=1).astype(jnp.int32)
            return Retrieved(items, scores, looked)
        score, node, parent = _best(found, edge, beam, width)
        own = jax.tree.map(lambda a, p=parent: a[jnp.arange(B)[:, None], p], own)
        logits, own = step(own, trie.code[level][node], level)
    raise ValueError("a trie has at least one level")


def _children(
    trie: Trie,
    level: int,
    score: jax.Array,
    node: jax.Array,
    logits: jax.Array,
    constrained: bool,
) -> tuple[jax.Array, jax.Array]:
    """What may follow the hypotheses: scores, -inf for nothing, and edges, [B, b, children] each.

    Args:
      trie: of the catalogue.
      level: that comes next.
      score: float32[B, b], of the hypotheses.
      node: int32[B, b], where they stand.
      logits: float32[B, b, K], of the next code.
      constrained: whether probabilities are among the children, or among all K.
    """
    log_p = logits if constrained else jax.nn.log_softmax(logits)
    if level < len(trie.dense):
        edge = trie.dense[level][node]
        real = edge >= 0
        log_p = log_p[..., : edge.shape[-1]]
    else:
        first, after = trie.first[level][node], trie.first[level][node + 1]
        edge = first[..., None] + jnp.arange(trie.branching[level])
        real = edge < after[..., None]
        log_p = jnp.take_along_axis(log_p, trie.code[level][jnp.where(real, edge, 0)], axis=-1)
    if constrained:
        log_p = jax.nn.log_softmax(log_p, where=real)
    real &= (score > -jnp.inf)[..., None]
    return jnp.where(real, score[..., None] + log_p, -jnp.inf), jnp.where(real, edge, 0)


def _best(
    found: jax.Array, edge: jax.Array, beam: int, branching: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(scores, nodes of the next level, hypotheses they come from), [B, beam] each."""
    short = max(beam - found.shape[1], 0)
    found = jnp.pad(found, ((0, 0), (0, short)), constant_values=-jnp.inf)
    score, place = largest(found, beam)
    place = jnp.where(score > -jnp.inf, place, 0)
    return score, jnp.take_along_axis(edge, place, axis=1), place // branching
