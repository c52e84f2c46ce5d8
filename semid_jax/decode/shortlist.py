"""The positions of the k best, in no order: a threshold is halved in place of keeping a heap.

On a CPU `lax.top_k` keeps the k best of a row in a heap, one comparison after another, which for k
of a hundred takes longer than making the scores. How many reach a threshold is counted many at a
time. Two rounds: among the largest of groups, then among the members of the best groups.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

FEW = 8  # rows: for fewer, the heap is as fast
# Positions of a group, the first with which the first round has something to leave out. Of 60,000
# both rounds look at about as many groups of 16 and members of them.
GROUPS = (16, 8, 4)
SPARE = 1 / 64  # of k: so many more may reach the threshold
HALVINGS = 24  # at most; where ties straddle rank k none is enough, and the heap decides
RUN = 32  # positions whose ranks are made by one product

# How often halved, the bounds float32[B] and how many reach the lower one, int32[B].
_Halving = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def shortlist(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k best of each row, and a few of those behind them.

    Args:
      scores: float32[B, n], -inf for what must not be chosen.
      k: the least number chosen, at most n.

    Returns:
      int32[B, k'], positions, no two alike among the filled, k' being k (1 + SPARE) and at most n;
      and bool[B, k'], whether a slot is filled: at least k are where a row has k finite scores.
      Whatever is better than rank k is chosen; of those that tie with it some may have no slot.
    """
    B, n = scores.shape
    slots = min(k + int(k * SPARE), n)
    if not halving_pays(B):
        return _heap(scores, slots)
    size = next((size for size in GROUPS if n // size >= 2 * k), 1)
    if size == 1:
        return _reaching(scores, k, slots)
    # Group w holds w, w + groups, ...; what is left over at the end are groups of one.
    groups = n // size
    cut = groups * size
    largest = jnp.max(scores[:, :cut].reshape(B, size, groups), axis=1)
    largest = jax.lax.optimization_barrier(jnp.concatenate([largest, scores[:, cut:]], axis=1))
    chosen, filled = _reaching(largest, k, slots)
    member = jnp.arange(size)[:, None]
    alone = chosen[:, None, :] >= groups
    position = jnp.where(alone, cut - groups, member * groups) + chosen[:, None, :]
    there = (filled[:, None, :] & ((member == 0) | ~alone)).reshape(B, -1)
    position = position.reshape(B, -1)
    inside = jnp.where(there, jnp.take_along_axis(scores, position, axis=1), -jnp.inf)
    at, filled = _reaching(jax.lax.optimization_barrier(inside), k, slots)
    return jnp.take_along_axis(position, at, axis=1), filled


def halving_pays(rows: int) -> bool:
    """Whether a threshold is found faster than a heap is kept, of so many rows."""
    return rows >= FEW and jax.default_backend() == "cpu"


def _heap(scores: jax.Array, slots: int) -> tuple[jax.Array, jax.Array]:
    """The best positions, and which slots are filled."""
    best, position = jax.lax.optimization_barrier(jax.lax.top_k(scores, slots))
    return position, best > -jnp.inf


def _reaching(scores: jax.Array, k: int, slots: int) -> tuple[jax.Array, jax.Array]:
    """Positions of what reaches a threshold, and which slots are filled."""
    threshold, count = _threshold(scores, k, slots)

    def in_order() -> tuple[jax.Array, jax.Array]:
        return _positions((scores >= threshold[:, None]) & (scores > -jnp.inf), slots)

    return jax.lax.cond(jnp.any(count > slots), lambda: _heap(scores, slots), in_order)


def _positions(reach: jax.Array, slots: int) -> tuple[jax.Array, jax.Array]:
    """Positions of the first that are set in bool[B, n], and which slots are filled."""
    B, n = reach.shape
    rank = _count_up_to(reach)
    slot = jnp.where(reach, jnp.minimum(rank - 1, slots), slots)  # the last one is thrown away
    slot += jnp.arange(B, dtype=jnp.int32)[:, None] * (slots + 1)
    position = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (B, n))
    made = jnp.zeros(B * (slots + 1), jnp.int32)
    made = made.at[slot.reshape(-1)].set(position.reshape(-1), mode="promise_in_bounds")
    return made.reshape(B, slots + 1)[:, :slots], jnp.arange(slots) < rank[:, -1:]


def _threshold(scores: jax.Array, k: int, slots: int) -> tuple[jax.Array, jax.Array]:
    """What at least k scores of a row reach, no more than slots if it is found, and how many do."""
    finite = scores > -jnp.inf
    low = jnp.min(jnp.where(finite, scores, jnp.inf), axis=1)
    high = jnp.max(scores, axis=1)

    def unfinished(carry: _Halving) -> jax.Array:
        step, _, _, count = carry
        return (step < HALVINGS) & jnp.any(count > slots)

    def halve(carry: _Halving) -> _Halving:
        step, low, high, count = carry
        middle = low + (high - low) * 0.5
        reach = jnp.sum(scores >= middle[:, None], axis=1, dtype=jnp.int32)
        enough = reach >= k
        return (
            step + 1,
            jnp.where(enough, middle, low),
            jnp.where(enough, high, middle),
            jnp.where(enough, reach, count),
        )

    count = jnp.sum(finite, axis=1, dtype=jnp.int32)
    _, low, _, count = jax.lax.while_loop(unfinished, halve, (jnp.array(0), low, high, count))
    return low, count


def _count_up_to(reach: jax.Array) -> jax.Array:
    """int32[B, n], how many are set at a position and before it; n up to 2^24."""
    return _sum_up_to(reach.astype(jnp.float32)).astype(jnp.int32)


def _sum_up_to(x: jax.Array) -> jax.Array:
    """Running sums of float32[B, n].

    Those of runs by products with a triangle, and of the runs' sums in the same way: XLA's own goes
    over the row log n times.
    """
    B, n = x.shape
    runs = jnp.pad(x, ((0, 0), (0, -n % RUN))).reshape(B, -1, RUN)
    inside = runs @ jnp.triu(jnp.ones((RUN, RUN), jnp.float32))
    each = inside[:, :, -1]
    if n > RUN:
        inside += (_sum_up_to(each) - each)[:, :, None]
    return inside.reshape(B, -1)[:, :n]
