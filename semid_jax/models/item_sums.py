"""Sums of exp(score) over the catalogue, the core of every item-level loss, and their gradient.

With S1 and S2 as in `hdnag` and t the true item of a position,

    r1 = log(1 + sum_i exp(S1(i) - S1(t))) ,   r2 likewise,   i over the candidates but t,

are its cross-entropies, and the softmax of the score that ranks gives every cell its mass. Most of
a training step is spent here, so it is written out:

* a score is exponentiated once, relative to the true item's, which needs no search for the largest
  (float32 holds exp(88), and CLIP keeps below that), and what comes out is kept for the gradient;
* what belongs to a position, 1 / sum and the gradient from above, multiplies small factors of the
  gradient's products, never the array [positions, items];
* factors are rounded to `dtype`, sums are float32; every product has the form that CPUs are fast
  at: what has to be transposed is small, and is turned round in memory first.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from semid_jax.models.rounding import dot, dot_rows

CLIP = 75.0  # of S(i) - S(t): exp(75) times 20,000 items is still a float32
LANES = 64  # rows of this many items are read whole; S is padded to a multiple


@struct.dataclass
class CatalogueOfS2:
    """What S2 reads of S candidates besides.

    Attributes:
      y: [S, D].
      e: [M, S, D_z], alpha~[i, m] e[i, m].
    """

    y: jax.Array
    e: jax.Array


@struct.dataclass
class Catalogue:
    """S candidates as they are read: rounded, and without a gradient.

    Attributes:
      ids: int32[S], 0 on padding.
      base: float32[S], the bias less the log of how often an item is expected; very low on padding.
      x: [S, D].
      xm: [S, D + D_z], x and m side by side.
      masses: [S, C], one-hot cells.
      of_s2: None where S1 is all there is.
    """

    ids: jax.Array
    base: jax.Array
    x: jax.Array
    xm: jax.Array
    masses: jax.Array
    of_s2: CatalogueOfS2 | None = None


@struct.dataclass
class LearnedOfS2:
    """What is differentiated of S2 besides, see `Learned`.

    Attributes:
      y: float32[D, S].
      likeness_by: float32[M], k.
      repeat: float32[], rho.
    """

    y: jax.Array
    likeness_by: jax.Array
    repeat: jax.Array


@struct.dataclass
class Learned:
    """What is differentiated of the candidates, in the form in which the gradient is made.

    Vectors are read from `Catalogue`; these say where their gradients go.

    Attributes:
      xm_bias: float32[D + D_z + 1, S].
      of_s2: None where S1 is all there is.
    """

    xm_bias: jax.Array
    of_s2: LearnedOfS2 | None = None


@struct.dataclass
class PlacesOfS2:
    """What S2 reads at n positions besides.

    Attributes:
      taste: float32[n, M, D_z], p_m.
      history: int32[n, T], places of the history's items in the catalogue, each once; S for none.
    """

    taste: jax.Array
    history: jax.Array


@struct.dataclass
class Places:
    """What no gradient changes at n positions.

    Attributes:
      target: int32[n], t.
      interest: float32[n, D_z], p.
      of_s2: None where S1 is all there is.
    """

    target: jax.Array
    interest: jax.Array
    of_s2: PlacesOfS2 | None = None


Sums = tuple[jax.Array, jax.Array, jax.Array]
Made = TypeVar("Made")


@struct.dataclass
class Kept:
    """What the gradient of S1 needs: inputs, exponentials [n, S] and one more than their sums."""

    states: jax.Array
    catalogue: Catalogue
    places: Places
    exps: jax.Array
    total: jax.Array


@struct.dataclass
class KeptOfS2:
    """The same of S2, and three sums over items, each item by its exponential.

    Attributes:
      exps: [n, S].
      total: float32[n].
      y: float32[n, D].
      likeness: float32[n, M], of <p_m, alpha~ e_m>.
      again: float32[n], of whether it is in the history.
    """

    exps: jax.Array
    total: jax.Array
    y: jax.Array
    likeness: jax.Array
    again: jax.Array


@jax.custom_vjp
def item_sums(
    states: jax.Array,
    own1: jax.Array,
    own2: jax.Array,
    learned: Learned,
    catalogue: Catalogue,
    places: Places,
) -> Sums:
    """r1, r2 and the masses of cells.

    Args:
      states: float32[n, D], s.
      own1: float32[n], S1(t).
      own2: float32[n], S2(t); not looked at where S1 is all there is.
      learned: of S candidates.
      catalogue: of the same.
      places: of the positions.

    Returns:
      float32[n] twice, r2 = r1 where S1 is all there is; float32[n, C], what each cell has of the
      softmax that ranks, the true item left out, without a gradient.
    """
    return _forward(states, own1, own2, learned, catalogue, places)[0]


def _forward(
    states: jax.Array,
    own1: jax.Array,
    own2: jax.Array,
    learned: Learned,
    catalogue: Catalogue,
    places: Places,
) -> tuple[Sums, tuple[Kept, KeptOfS2 | None]]:
    dtype = catalogue.x.dtype
    asked = jnp.concatenate([states, places.interest], axis=1)
    s1 = dot_rows(asked, catalogue.xm, dtype) + catalogue.base
    exps = _exps(s1, own1, catalogue, places)
    items, of_learned, past = catalogue.of_s2, learned.of_s2, places.of_s2
    if items is None or of_learned is None or past is None:
        mass = dot(exps, catalogue.masses, dtype)
        total = 1.0 + jnp.sum(mass, axis=1)  # every item is in one cell
        kept = Kept(states, catalogue, places, exps, total)
        return (jnp.log(total), jnp.log(total), mass / total[:, None]), (kept, None)
    total = 1.0 + jnp.sum(exps, axis=1, dtype=jnp.float32)
    kept = Kept(states, catalogue, places, exps, total)

    tastes = jnp.moveaxis(past.taste, 1, 0)
    likeness = [dot_rows(p, e, dtype) for p, e in zip(tastes, items.e, strict=True)]
    rows = jnp.arange(len(states))[:, None]
    of_y = dot_rows(states, items.y, dtype)
    s2 = s1 + of_y.at[rows, past.history].add(of_learned.repeat, mode="drop")
    for k, like in zip(of_learned.likeness_by, likeness, strict=True):
        s2 += k * like
    exps = _exps(s2, own2, catalogue, places)
    made = dot(exps, jnp.concatenate([items.y, catalogue.masses], axis=1), dtype)
    y, mass = made[:, : states.shape[1]], made[:, states.shape[1] :]
    there = jnp.take_along_axis(exps, past.history, axis=1, mode="fill", fill_value=0)
    kept_of_s2 = KeptOfS2(
        exps=exps,
        total=1.0 + jnp.sum(mass, axis=1),
        y=y,
        likeness=jnp.stack([jnp.sum(exps * like, axis=1) for like in likeness], axis=1),
        again=jnp.sum(there, axis=1, dtype=jnp.float32),
    )
    sums = jnp.log(total), jnp.log(kept_of_s2.total), mass / kept_of_s2.total[:, None]
    return sums, (kept, kept_of_s2)


def _exps(scores: jax.Array, own: jax.Array, catalogue: Catalogue, places: Places) -> jax.Array:
    """exp(S(i) - S(t)), [n, S], 0 at t."""
    made = jnp.exp(jnp.minimum(scores - own[:, None], CLIP))
    made = jnp.where(places.target[:, None] == catalogue.ids, 0.0, made)
    return made.astype(catalogue.x.dtype)


def _backward(
    kept: tuple[Kept, KeptOfS2 | None], above: Sums
) -> tuple[jax.Array, jax.Array, jax.Array, Learned, None, None]:
    of_s1, of_s2 = kept
    states, x, dtype = of_s1.states, of_s1.catalogue.x, of_s1.catalogue.x.dtype
    asked = jnp.concatenate([states.T, of_s1.places.interest.T, jnp.ones((1, len(states)))])
    if of_s2 is None:
        by = (above[0] + above[1]) / of_s1.total
        of_states = by[:, None] * dot(of_s1.exps, x, dtype)
        learned = _apart(Learned(dot(_apart((asked * by).astype(dtype)), of_s1.exps, dtype)))
        return of_states, -by * (of_s1.total - 1.0), jnp.zeros_like(by), learned, None, None
    by1, by2 = above[0] / of_s1.total, above[1] / of_s2.total
    both = (by1[:, None] * of_s1.exps + by2[:, None] * of_s2.exps).astype(dtype)
    learned_of_s2 = LearnedOfS2(
        y=dot(_apart((by2 * states.T).astype(dtype)), of_s2.exps, dtype),
        likeness_by=by2 @ of_s2.likeness,
        repeat=jnp.sum(by2 * of_s2.again),
    )
    return (
        dot(both, x, dtype) + by2[:, None] * of_s2.y,
        -by1 * (of_s1.total - 1.0),
        -by2 * (of_s2.total - 1.0),
        _apart(Learned(dot(_apart(asked.astype(dtype)), both, dtype), learned_of_s2)),
        None,
        None,
    )


def _apart(made: Made) -> Made:
    """As it is: a transposition before or after a product is not made part of it."""
    apart: Made = jax.lax.optimization_barrier(made)
    return apart


item_sums.defvjp(_forward, _backward)
