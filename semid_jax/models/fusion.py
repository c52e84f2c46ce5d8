"""Personalised fusion: items as an archetype of user sees them (design part 3.4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

Rows = jax.Array | slice  # of a table of items: int32[...], or a range of them
FAINTEST = 0.05  # a weight below counts as one: a modality that z hardly holds is not asked for


@struct.dataclass
class Archetypes:
    """Prototypes of users.

    Attributes:
      alpha: float32[A, M], weights of the modalities.
      interest: float32[A, D], mean interest.
      gate: float32[A, D], the interest gate g_a.
    """

    alpha: jax.Array
    interest: jax.Array
    gate: jax.Array


def fuse(e: jax.Array, mask: jax.Array, alpha: jax.Array, gate: jax.Array) -> jax.Array:
    """z = sum_m alpha~_m (1 + g) * e_m, alpha~ being alpha over the modalities the item has.

    Not normalised: z is linear in e.

    Args:
      e: float32[..., M, D].
      mask: bool[..., M].
      alpha: float32[..., M], broadcast against the leading axes of e.
      gate: float32[..., D], likewise.

    Returns:
      float32[..., D]; zero for an item without any modality.
    """
    return (1.0 + gate) * jnp.einsum("...m,...md->...d", shares(alpha, mask), e)


def shares(alpha: jax.Array, mask: jax.Array) -> jax.Array:
    """alpha~, alpha over the modalities that an item has.

    Args:
      alpha: float32[..., M].
      mask: bool[..., M].

    Returns:
      float32[..., M], of sum 1; zero for an item without any modality.
    """
    weights = alpha * mask
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-6)


@struct.dataclass
class ItemViews:
    """What it takes to see any item as any archetype does, and what users then ask for.

    Attributes:
      content: float32[N + 1, M, D_z + D_e], items as z takes them, h, and as they are encoded, e,
        side by side, for who needs one mostly needs both; zero where an item lacks the modality.
      mask: bool[N + 1, M].
      archetypes: A prototypes.
      table: float32[M, K, D_z], what the perceiver's tastes ask of z.
    """

    content: jax.Array
    mask: jax.Array
    archetypes: Archetypes
    table: jax.Array

    def h(self, items: Rows) -> jax.Array:
        """float32[..., M, D_z], items as z takes them."""
        return self.content[items][..., : self.archetypes.gate.shape[-1]]

    def e(self, items: Rows) -> jax.Array:
        """float32[..., M, D_e], encoded items."""
        return self.content[items][..., self.archetypes.gate.shape[-1] :]


def see(views: ItemViews, archetype: jax.Array, items: Rows) -> jax.Array:
    """z of items under archetypes.

    Args:
      views: of the catalogue.
      archetype: int32[...], broadcast against items.
      items: int32[...].

    Returns:
      float32[..., D].
    """
    of = views.archetypes
    return fuse(views.h(items), views.mask[items], of.alpha[archetype], of.gate[archetype])


def ask(belief: jax.Array, alpha: jax.Array, table: jax.Array) -> jax.Array:
    """What a user asks of z, an item as weights alpha see it.

    z holds a modality by its weight already, so what is believed of the user's tastes is divided
    by it: <p, z> is then about kappa sum_m alpha_m r[i, m, k_m], the perceiver's score.

    Args:
      belief: float[..., M, K].
      alpha: float32[..., M], of z.
      table: float32[M, K, D], of `Pmat.table`.

    Returns:
      float32[..., D], p.
    """
    by_taste = belief.astype(table.dtype) / jnp.maximum(alpha, FAINTEST)[..., None]
    return jnp.einsum("...mk,mkd->...d", by_taste, table)


def parts(views: ItemViews, archetype: jax.Array, items: Rows) -> jax.Array:
    """alpha~[i, m] e[i, m] of items under archetypes, see `see`: float32[..., M, D]."""
    own = shares(views.archetypes.alpha[archetype], views.mask[items])
    return own[..., None] * views.e(items)


def user_features(alpha: jax.Array, interest: jax.Array) -> jax.Array:
    """The space in which archetypes are clustered: weights first, interest second.

    Args:
      alpha: float32[..., M].
      interest: float32[..., D].

    Returns:
      float32[..., M + D].
    """
    return jnp.concatenate([2.0 * alpha, 0.5 * interest], axis=-1)


def assign_archetype(alpha: jax.Array, interest: jax.Array, archetypes: Archetypes) -> jax.Array:
    """The nearest archetype.

    Args:
      alpha: float32[..., M].
      interest: float32[..., D].
      archetypes: A prototypes.

    Returns:
      int32[...].
    """
    return jnp.argmin(_distances(alpha, interest, archetypes), axis=-1).astype(jnp.int32)


def follow_archetype(
    alpha: jax.Array,
    interest: jax.Array,
    archetypes: Archetypes,
    held: jax.Array,
    drifted: jax.Array,
    hold: float | jax.Array,
) -> jax.Array:
    """The archetype of users who had one before: IDs must not flicker between two that are alike.

    Args:
      alpha: float32[B, M].
      interest: float32[B, D].
      archetypes: A prototypes.
      held: int32[B], the archetypes so far.
      drifted: bool[B], users who take the nearest in any case.
      hold: the others take it if its squared distance is less than this share of the held one's.

    Returns:
      int32[B].
    """
    distance = _distances(alpha, interest, archetypes)
    nearest = jnp.argmin(distance, axis=-1).astype(jnp.int32)
    of_held = jnp.take_along_axis(distance, held[:, None], axis=-1)[:, 0]
    return jnp.where(drifted | (jnp.min(distance, axis=-1) < hold * of_held), nearest, held)


def _distances(alpha: jax.Array, interest: jax.Array, archetypes: Archetypes) -> jax.Array:
    """float32[..., A], squared distances of users to the prototypes."""
    points = user_features(alpha, interest)
    centres = user_features(archetypes.alpha, archetypes.interest)
    of_points = jnp.sum(points**2, axis=-1, keepdims=True)
    return jnp.maximum(of_points + jnp.sum(centres**2, -1) - 2.0 * points @ centres.T, 0.0)
