"""A small generator and catalogue for the tests of its scores and losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.models.codes import Centroids, meaning
from semid_jax.models.fusion import Archetypes, ItemViews
from semid_jax.models.hdnag import Generator, GeneratorConfig
from semid_jax.train.objective import Codes
from semid_jax.train.proposal import make_proposal

CONFIG = GeneratorConfig(width=16, layers=1, heads=2, digit_width=4, condition_rank=3, dropout=0.1)
A, N, L, K, C, M, Z, TASTES = 2, 20, 4, 8, 5, 2, 8, 3


POPULARITY = jnp.asarray(np.random.default_rng(5).normal(size=N + 1), jnp.float32)


def world(seed=0, **changes):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, C, (A, N + 1)).astype(np.int32)
    fine = rng.integers(0, K, (A, N + 1, L)).astype(np.uint8)
    generator = Generator(dataclasses.replace(CONFIG, **changes), C, L, K, 6, N, Z, M)
    params = generator.init(jax.random.key(seed), make_centroids(), *blank_inputs())
    # The condition starts at zero; a test of it needs it to be something.
    params["params"]["condition_up"] = jnp.asarray(rng.normal(size=(3, L, 4)), jnp.float32)
    return rng, coarse, fine, generator, params


def make_centroids(width=Z // L):
    rng = np.random.default_rng(7)
    return Centroids(
        jnp.asarray(rng.normal(size=(C, Z)), jnp.float32),
        jnp.asarray(np.linalg.qr(rng.normal(size=(Z, Z)))[0], jnp.float32),
        jnp.asarray(rng.normal(size=(L, K, width)), jnp.float32),
    )


def blank_inputs():
    blank = jnp.zeros((1, 2), jnp.int32)
    return blank, jnp.zeros((1, 2, L), jnp.uint8), jnp.zeros((1, 2, Z))


def make_views(rng):
    """Encoded items, one without its first modality, and two archetypes."""
    mask = np.ones((N + 1, M), bool)
    mask[0], mask[3, 0] = False, False
    return ItemViews(
        jnp.asarray(rng.normal(size=(N + 1, M, 2 * Z)) * mask[..., None], jnp.float32),
        jnp.asarray(mask),
        Archetypes(
            jnp.asarray([[0.3, 0.7], [0.9, 0.1]]),
            jnp.zeros((A, Z)),
            jnp.asarray(rng.uniform(-0.5, 0.5, (A, Z)), jnp.float32),
        ),
        jnp.asarray(rng.normal(size=(M, TASTES, Z)), jnp.float32),
    )


def make_codes(coarse, fine, views):
    codes = jnp.asarray(coarse), jnp.asarray(fine)
    proposal = make_proposal(np.minimum(np.arange(N + 1), 1))  # all alike
    return Codes(*codes, proposal, POPULARITY, views, make_centroids())


def states_of(generator, params, vectors, items):
    return np.asarray(generator.apply(params, vectors, items > 0, method=Generator.states))


def code_vectors(generator, params, coarse, fine, centroids=None):
    codes = jnp.asarray(coarse), jnp.asarray(fine)
    asked = *codes, meaning(centroids or make_centroids(), *codes), jnp.zeros(coarse.shape)
    return jax.tree.map(np.asarray, generator.apply(params, *asked, method=Generator.code_vectors))
