"""A small crowd with known tastes, shared by the tests of perceiver, stream and readings."""

import jax.numpy as jnp
import numpy as np

from semid_jax.models.perceiver import Prior, fit_latents, read_items, simplex
from semid_jax.models.stream import Perceiver

N, M, K, D = 40, 2, 3, 6


def make_items(rng, n=N, missing=0.2):
    """e float32[n + 1, M, D], mask bool[n + 1, M]; row 0 is padding, no item lacks everything."""
    e = rng.normal(size=(n + 1, M, D)).astype(np.float32)
    mask = rng.random((n + 1, M)) > missing
    mask[~mask.any(axis=1), 0] = True
    mask[0] = False
    return e * mask[..., None], mask


def make_latents(rng, e, mask, strength=3.0, log_weight=None, taste=None):
    """Latents of random tastes under a crowd of all items."""
    taste = rng.normal(size=(M, K, D)) if taste is None else taste
    prior = Prior(
        jnp.asarray(rng.normal(size=len(simplex(M)[0])), jnp.float32),
        jnp.asarray(rng.normal(size=(M, K)), jnp.float32),
    )
    weight = np.zeros(len(e) - 1) if log_weight is None else log_weight
    return fit_latents(
        jnp.asarray(taste, jnp.float32), np.log(strength), prior, e[1:], mask[1:], weight
    )


def make_perceiver(seed=0, strength=3.0, missing=0.2, items=N):
    """A perceiver of random items and tastes."""
    rng = np.random.default_rng(seed)
    e, mask = make_items(rng, items, missing)
    latents = make_latents(rng, e, mask, strength)
    e, mask = jnp.asarray(e), jnp.asarray(mask)
    return Perceiver(latents, read_items(latents, e, mask), mask)


def choose(rng, perceiver, alpha, tastes, count):
    """int32[count], choices of a user of given weights and tastes, by the model's own law."""
    strength = float(perceiver.latents.strength[-1]) * len(perceiver.latents.strength)
    strength /= len(perceiver.latents.strength) - 1 + 1 / M  # kappa
    readings = np.asarray(perceiver.readings)[:, np.arange(M), tastes]
    p = np.exp(strength * readings @ np.asarray(alpha))
    p[0] = 0
    return rng.choice(len(p), count, p=p / p.sum()).astype(np.int32)
