"""`inverted`: only the items of the P cells with the best coarse logits are scored."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from semid_jax.decode.exact import check_query
from semid_jax.decode.index import Index
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Query, score_gathered
from semid_jax.decode.topk import top_k_ties


@functools.partial(jax.jit, static_argnames=("probes", "k"))
def retrieve_inverted(index: Index, query: Query, probes: int, k: int) -> Retrieved:
    """The k best items under S1 inside the P best cells.

    Args:
      index: the catalogue.
      query: B users.
      probes: P, cells probed per user; all of them where there are fewer.
      k: items returned.

    Returns:
      items, scores and the number of entries scored.
    """
    check_query(index, query)
    probes = min(probes, index.n_cells)
    _, cells = jax.lax.top_k(query.coarse, probes)
    position, valid = gather_lists(index, query.archetype, cells)
    entry = index.lists[query.archetype[:, None], position]
    scores = score_gathered(
        query, index.entry_coarse[entry], index.entry_fine[entry], index.entry_bias[entry]
    )
    scores = jnp.where(valid, scores, -jnp.inf)
    items, scores = top_k_ties(scores, index.entry_item[entry], k)
    return Retrieved(items, scores, valid.sum(axis=1, dtype=jnp.int32))


def gather_lists(
    index: Index, archetype: jax.Array, cells: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Lays the lists of the probed cells end to end, in a width that holds any P cells.

    Args:
      index: the catalogue.
      archetype: int32[B].
      cells: int32[B, P], distinct.

    Returns:
      (int32[B, S] positions in `index.lists[archetype]`, bool[B, S] which of them are real), S
      being the size of the P longest lists.
    """
    probes = cells.shape[1]
    start = index.offsets[archetype[:, None], cells]
    end = jnp.cumsum(index.offsets[archetype[:, None], cells + 1] - start, axis=1)
    slot = jnp.arange(max(index.probe_sizes[probes - 1], 1), dtype=jnp.int32)
    # Slot s lies in the first list that ends behind it.
    probe = jnp.zeros((cells.shape[0], len(slot)), jnp.int32)
    for p in range(probes):
        probe = probe + (slot >= end[:, p, None])
    inside = jnp.minimum(probe, probes - 1)
    shift = start - jnp.pad(end[:, :-1], ((0, 0), (1, 0)))
    valid = slot < end[:, -1, None]
    position = slot + jnp.take_along_axis(shift, inside, axis=1)
    return jnp.where(valid, position, 0), valid
