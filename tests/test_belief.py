"""What PMAT believes of a user, as the generator asks for it, against slow, obvious versions."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from generator_world import (
    POPULARITY,
    TASTES,
    K,
    L,
    M,
    N,
    Z,
    code_vectors,
    make_centroids,
    make_codes,
    make_views,
    states_of,
    world,
)

from semid_jax.data.sequences import train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.eval.model import Model, user_vectors
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.codes import Meaning, meaning
from semid_jax.models.fusion import FAINTEST, ask, fuse
from semid_jax.models.hdnag import FASTER
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.train.objective import hdnag_losses
from semid_jax.train.semantic_ids import make_tokenizer
from semid_jax.train.step import Chance


def test_what_a_user_asks_of_z_is_the_perceivers_score_where_modalities_are_apart():
    rng = np.random.default_rng(0)
    e = np.zeros((N, 2, Z), np.float32)
    e[:, 0, :4], e[:, 1, 4:] = rng.normal(size=(2, N, 4))
    table = np.zeros((2, TASTES, Z), np.float32)
    table[0, :, :4], table[1, :, 4:] = rng.normal(size=(2, TASTES, 4))
    belief = rng.uniform(size=(2, TASTES)).astype(np.float32)
    score = np.einsum("mk,mkd,nmd->n", belief, table, e)
    for weights in ([0.5, 0.5], [0.9, 0.1]):
        alpha = jnp.asarray(weights)
        z = fuse(jnp.asarray(e), jnp.ones((N, 2), bool), alpha, jnp.zeros(Z))
        np.testing.assert_allclose(z @ ask(belief, alpha, table), score, rtol=1e-4, atol=1e-5)
    faint = ask(jnp.asarray(belief), jnp.asarray([1.0, 0.0]), jnp.asarray(table))
    np.testing.assert_allclose(faint[4:], (belief[1] @ table[1])[4:] / FAINTEST, rtol=1e-5)


def test_training_and_serving_score_what_is_believed_and_how_popular_items_are():
    rng, coarse, fine, generator, params = world(belief=True, popularity=True, dropout=0.0)
    params["params"]["likeness"] = jnp.asarray([0.4, 0.7], jnp.float32) / FASTER
    params["params"]["popularity"] = jnp.float32(0.3 / FASTER)
    views = make_views(rng)
    items = rng.integers(1, N + 1, (4, 7)).astype(np.int32)
    inputs, targets, archetype = items[:, :-1], items[:, 1:], np.array([0, 0, 1, 1], np.int32)
    belief = rng.uniform(size=(4, 6, M, TASTES)).astype(np.float16)
    column = archetype[:, None]
    of_items = code_vectors(generator, params, coarse, fine)
    states = states_of(generator, params, of_items.x[column, inputs], inputs)
    s1 = np.einsum("btd,bnd->btn", states, of_items.x[archetype])
    s1 += of_items.bias[archetype][:, None] + 0.3 * np.asarray(POPULARITY)
    for b, a in enumerate(archetype):
        for t in range(6):
            p = np.zeros(Z)
            for m in range(M):
                weight = float(views.archetypes.alpha[a, m])
                p += (belief[b, t, m].astype(np.float32) / weight) @ np.asarray(views.table[m])
            s1[b, t] += of_items.m[a] @ p

    codes = make_codes(coarse, fine, views)
    batch = {
        "inputs": jnp.asarray(inputs),
        "targets": jnp.asarray(targets),
        "archetype": jnp.asarray(archetype),
        "example": jnp.arange(4, dtype=jnp.uint32),
        "belief": jnp.asarray(belief),
    }
    losses = hdnag_losses(generator, LossConfig(candidates=N, fakes=4), 2)
    sums = losses.sums(params, codes, batch, Chance(jnp.uint32(0), jnp.int32(0)))
    own = np.take_along_axis(s1, targets[..., None], -1)[..., 0]
    expected = (np.log(np.exp(s1[..., 1:]).sum(axis=-1)) - own).sum()
    np.testing.assert_allclose(float(sums["item_loss"]), expected, rtol=1e-4)

    read = coarse[column, inputs], fine[column, inputs], inputs, archetype, belief[:, -1]
    model = Model(params, views, make_centroids(), generator)
    vector, state, _ = user_vectors(model, *read)
    np.testing.assert_allclose(state, states[:, -1], rtol=1e-4, atol=1e-5)
    tables = generator.apply(params, make_centroids(), method=type(generator).tables)
    digits = np.asarray(tables.fine)[np.arange(L), fine[archetype].astype(int)]
    flat = digits.reshape(4, N + 1, -1)
    asked = codes.coarse[archetype], codes.fine[archetype], jnp.tile(POPULARITY, (4, 1))
    bias = generator.apply(params, *asked, method=type(generator).item_bias)
    of_codes = [np.asarray(tables.coarse)[coarse[archetype]], flat, np.asarray(bias)[..., None]]
    found = np.einsum("bf,bnf->bn", vector, np.concatenate(of_codes, axis=-1))
    np.testing.assert_allclose(found, s1[:, -1], rtol=1e-3, atol=1e-3)


def test_shared_digits_mean_nothing_in_an_archetypes_space():
    own, shared = make_centroids(Z // 2), 2
    words = jnp.pad(own.fine[:2], ((0, shared), (0, 0), (0, 0)))
    centroids = own.replace(fine=words)
    rng = np.random.default_rng(3)
    coarse = jnp.asarray(rng.integers(0, 5, 9), jnp.int32)
    fine = rng.integers(0, K, (9, 4)).astype(np.uint8)
    found = meaning(centroids, coarse, jnp.asarray(fine))
    expected = meaning(own.replace(fine=own.fine[:2]), coarse, jnp.asarray(fine[:, :2]))
    for name in Meaning.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    _, _, _, generator, params = world()
    state, p = np.zeros((3, 16), np.float32), rng.normal(size=(3, Z)).astype(np.float32)
    _, asked = generator.apply(params, centroids, state, p, method=type(generator).query)
    np.testing.assert_allclose(asked[:, 2:, 4:], 0.0)
    turned = 2.0 * (p @ np.asarray(own.rotation)).reshape(3, 2, Z // 2)
    np.testing.assert_allclose(asked[:, :2, 4:], turned, rtol=1e-4, atol=1e-5)


def test_shared_digits_are_those_of_the_static_tokenizer():
    raw = generate(SyntheticConfig(n_users=30, n_items=60, topics=4))
    known = train_items(raw.interactions)
    features, _ = fit_transform(raw.catalogue, known, FeaturesConfig())
    pmat = PmatConfig(
        width=16,
        tastes=4,
        archetypes=3,
        window=4,
        steps=3,
        batch_size=8,
        positions=4,
        candidates=32,
    )
    book = QuantizeConfig(digits=6, shared=4, codewords=8, iterations=3, rotation_iterations=1)

    def make(archetypes, quantize):
        config = dataclasses.replace(pmat, archetypes=archetypes)
        return make_tokenizer(features, raw.interactions, config, quantize, 10, 0)

    personal = make(3, book)
    static = make(1, dataclasses.replace(book, digits=4, shared=0, cells=1))
    assert personal.fine.shape == (len(personal.coarse), 61, 6)
    assert personal.book.digits == 2
    for column in personal.fine:
        np.testing.assert_array_equal(column[:, 2:], static.fine[0])
    assert (personal.fine[0, :, :2] != personal.fine[1, :, :2]).any()
