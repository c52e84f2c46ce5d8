"""The positions of the k best, in no order: a threshold is searched for in place of keeping a heap.

On a CPU `lax.top_k` keeps the k best of a row in a heap, one comparison after another, which for k
of a hundred takes longer than making the scores. How many reach a threshold is counted many at a
time. Two rounds: among the largest of groups, then among the members of the best groups, of which
hardly more reach the same threshold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

FEW = 8  # rows: for fewer, the heap is as fast
# Positions of a group, the first with which the first round has something to leave out. Of 60,000
# both rounds look at about as many groups of 16 and members of them.
GROUPS = (16, 8, 4)
SPARE = 1 / 64  # of k: so many more may reach the threshold
PARTS = 4  # of the interval of a threshold, told apart by one pass over the row
PASSES = 12  # at most; where ties straddle rank k none is enough, and the heap decides
RUN = 32  # positions whose sums are made by one product
BITS = 32  # positions of a word

_Found = tuple[jax.Array, jax.Array]  # scores float32[B, k'] and positions int32[B, k']
# How many passes, the bounds float32[B] and how many reach the lower one, int32[B].
_Search = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def shortlist(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k best of each row, and a few of those behind them.

    Args:
      scores: float32[B, n], -inf for what must not be chosen.
      k: the least number chosen, at most n.

    Returns:
      float32[B, k'], scores, k' being k (1 + SPARE) and at most n, -inf where a slot is not filled:
      at least k are where a row has k finite scores. And int32[B, k'], their positions, no two
      alike where slots are filled. Whatever is better than rank k is chosen; of those that tie with
      it some may have no slot.
    """
    B, n = scores.shape
    slots = min(k + int(k * SPARE), n)
    if not counting_pays(B):
        return _heap(scores, slots)
    size = next((size for size in GROUPS if n // size >= 2 * k), 1)
    if size == 1:
        return _reaching(scores, k, slots, _least(scores))
    # Group w holds w, w + groups, ...; some at the end have one less.
    groups = -(-n // size)
    wide = jnp.pad(scores, ((0, 0), (0, groups * size - n)), constant_values=-jnp.inf)
    slices = [wide[:, at : at + groups] for at in range(0, groups * size, groups)]
    largest = functools.reduce(jnp.maximum, slices)
    reached, count = _threshold(largest, k, slots, _least(largest))

    def among_members() -> _Found:
        chosen, filled = _positions(_reach(largest, reached), slots)
        position = groups * jnp.arange(size)[:, None] + chosen[:, None, :]
        there = (filled[:, None, :] & (position < n)).reshape(B, -1)
        position = jnp.minimum(position, n - 1).reshape(B, -1)
        inside = jnp.where(there, jnp.take_along_axis(scores, position, axis=1), -jnp.inf)
        best, at = _reaching(jax.lax.optimization_barrier(inside), k, slots, reached)
        return best, jnp.take_along_axis(position, at, axis=1)

    return _unless_too_many(count, slots, among_members, scores)


def counting_pays(rows: int) -> bool:
    """Whether a threshold is found faster than a heap is kept, of so many rows."""
    return rows >= FEW and jax.default_backend() == "cpu"


def made_once(scores: jax.Array) -> jax.Array:
    """A copy of float32[B, n], the only reader of what makes them.

    XLA on a CPU takes sums of look-ups for cheap: where a shortlist's passes read them it may make
    them for each, every term as an array of its own. What a branch is handed, and what it returns,
    is made once. XLA cannot know that this one is taken: a barrier hides the constant until
    branches have been simplified. It is gone before loops are fused, so a barrier around the scores
    themselves keeps nothing apart.
    """
    if not counting_pays(len(scores)):
        return scores
    taken = jax.lax.optimization_barrier(jnp.array(True))
    return jax.lax.cond(taken, lambda x: x, lambda x: jnp.full_like(x, -jnp.inf), scores)


def _heap(scores: jax.Array, slots: int) -> _Found:
    best, position = jax.lax.optimization_barrier(jax.lax.top_k(scores, slots))
    return best, position


def _least(scores: jax.Array) -> jax.Array:
    """float32[B], the least that is finite."""
    return jnp.min(jnp.where(scores > -jnp.inf, scores, jnp.inf), axis=1)


def _reach(scores: jax.Array, threshold: jax.Array) -> jax.Array:
    """bool[B, n], which of the finite scores reach the threshold of their row."""
    return (scores >= threshold[:, None]) & (scores > -jnp.inf)


def _reaching(scores: jax.Array, k: int, slots: int, low: jax.Array) -> _Found:
    """What reaches a threshold.

    Args:
      scores: float32[B, n].
      k: the least number chosen.
      slots: the most.
      low: float32[B], what the k best surely reach.
    """
    threshold, count = _threshold(scores, k, slots, low)

    def there() -> _Found:
        position, filled = _positions(_reach(scores, threshold), slots)
        return jnp.where(filled, jnp.take_along_axis(scores, position, axis=1), -jnp.inf), position

    return _unless_too_many(count, slots, there, scores)


def _unless_too_many(
    count: jax.Array, slots: int, found: Callable[[], _Found], scores: jax.Array
) -> _Found:
    """What is found where no row has more than the slots, int32[B]; else what the heap finds.

    What a branch reads is made for it. Scores that are read outside as well, XLA makes twice: it
    takes the look-ups of a search for cheap.
    """
    return jax.lax.cond(jnp.any(count > slots), lambda: _heap(scores, slots), found)


def _positions(reach: jax.Array, slots: int) -> tuple[jax.Array, jax.Array]:
    """Positions of those that are set in bool[B, n], at most so many, and which slots are filled.

    They are made words of BITS; which word a slot's position is in, and which bit of it, is told by
    how many are set before it.
    """
    n = reach.shape[1]
    words = -(-n // BITS)
    # Word w holds w, w + words, ...
    wide = jnp.pad(reach, ((0, 0), (0, words * BITS - n))).astype(jnp.uint32)
    bits = [wide[:, i * words : (i + 1) * words] << i for i in range(BITS)]
    word = jax.lax.optimization_barrier(functools.reduce(jnp.bitwise_or, bits))
    each = jax.lax.population_count(word).astype(jnp.int32)
    end = _sum_up_to(each.astype(jnp.float32)).astype(jnp.int32)
    slot = jnp.arange(slots, dtype=jnp.int32)
    which = jnp.sum(end[:, None, :] <= slot[:, None], axis=2, dtype=jnp.int32)
    which = jnp.minimum(which, words - 1)
    before = jnp.take_along_axis(end - each, which, axis=1)
    bit = _bit_of_rank(jnp.take_along_axis(word, which, axis=1), slot - before)
    return jnp.minimum(bit * words + which, n - 1), slot < end[:, -1:]


def _bit_of_rank(word: jax.Array, rank: jax.Array) -> jax.Array:
    """int32[...], the place of the bit behind so many others, of words uint32[...]."""
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(word & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
        above = rank >= below
        rank = jnp.where(above, rank - below, rank)
        word = jnp.where(above, word >> half, word)
        place = jnp.where(above, place + half, place)
    return place


def _threshold(
    scores: jax.Array, k: int, slots: int, low: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What at least k scores of a row reach, no more than slots if it is found, and how many do."""
    shares = [(part + 1) / PARTS for part in range(PARTS - 1)]

    def unfinished(carry: _Search) -> jax.Array:
        done, _, _, count = carry
        return (done < PASSES) & jnp.any(count > slots)

    def search(carry: _Search) -> _Search:
        done, low, high, count = carry
        cuts = [low + (high - low) * share for share in shares]
        reaching = _count([scores >= cut[:, None] for cut in cuts])
        for cut, reach in zip(cuts, reaching, strict=True):
            low, count = jnp.where(reach >= k, cut, low), jnp.where(reach >= k, reach, count)
        for cut, reach in zip(reversed(cuts), reversed(reaching), strict=True):
            high = jnp.where(reach >= k, high, cut)
        return done + 1, low, high, count

    (count,), high = _count([scores >= low[:, None]]), jnp.max(scores, axis=1)
    _, low, _, count = jax.lax.while_loop(unfinished, search, (jnp.array(0), low, high, count))
    return low, count


def _count(reached: list[jax.Array]) -> list[jax.Array]:
    """int32[B], how many are set in a row of each bool[B, n], all in one pass."""
    ones, zeros = tuple(x.astype(jnp.int32) for x in reached), (jnp.int32(0),) * len(reached)

    def add(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    return list(jax.lax.reduce(ones, zeros, add, (1,)))


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
