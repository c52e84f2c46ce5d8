"""Queries of users: the same whatever batch and padding they are computed in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.decode.index import build_index
from semid_jax.decode.score import Query, Tables
from semid_jax.eval import users as evaluated
from semid_jax.eval.model import (
    Model,
    hdnag_queries,
    make_read_side,
    normalised,
    user_query,
    user_vectors,
    with_model,
)
from semid_jax.models.codes import Centroids
from semid_jax.models.fusion import Archetypes, ItemViews
from semid_jax.models.hdnag import Generator, GeneratorConfig

A, N, L, K, C, U, T, Z = 2, 20, 4, 8, 5, 37, 12, 8
CONFIG = GeneratorConfig(width=16, layers=1, heads=2, digit_width=4, dense="free")


@pytest.mark.parametrize("reads_belief", [False, True])
def test_queries_equal_those_of_one_padded_batch(monkeypatch, reads_belief):
    monkeypatch.setattr(evaluated, "POSITIONS", 30)  # batches of 2 to 10 rows
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, C, (A, N + 1)).astype(np.int32)
    fine = rng.integers(0, K, (A, N + 1, L)).astype(np.uint8)
    history = rng.integers(1, N + 1, (U, T)).astype(np.int32)
    history[np.arange(T) >= rng.integers(1, T + 1, U)[:, None]] = 0
    users, archetype = np.arange(U), rng.integers(0, A, U).astype(np.int32)
    alpha = rng.dirichlet([1.0, 1.0], U).astype(np.float32)
    belief = rng.normal(size=(U, 2, 3)).astype(np.float16)
    known = archetype, alpha, belief
    side = make_read_side(users, history, history[:, 0], *known, coarse, fine)
    np.testing.assert_array_equal(belief[side.users], side.belief)
    np.testing.assert_array_equal(alpha[side.users], side.alpha)
    assert sorted(side.users) == list(range(U))
    np.testing.assert_array_equal(history[side.users], side.history)
    lengths = (side.history > 0).sum(axis=1)
    for a in range(A):  # of one archetype, the short ones first
        assert (np.diff(lengths[side.archetype == a]) >= 0).all()

    config = dataclasses.replace(CONFIG, belief=reads_belief)
    generator = Generator(config, C, L, K, T, N, Z, 2)
    centroids = Centroids(jnp.ones((C, Z)), jnp.eye(Z), jnp.ones((L, K, Z // L)))
    blank = side.coarse[:1], side.fine[:1], np.zeros((1, T, Z))
    params = generator.init(jax.random.key(0), centroids, *blank)
    views = ItemViews(
        jnp.asarray(rng.normal(size=(N + 1, 2, 2 * Z)), jnp.float32),
        jnp.ones((N + 1, 2), bool),
        Archetypes(jnp.ones((A, 2)) / 2, jnp.zeros((A, Z)), jnp.ones((A, Z)) / 10),
        jnp.asarray(rng.normal(size=(2, 3, Z)), jnp.float32),
    )
    tables = Tables(jnp.zeros((C, 16 + Z)), jnp.zeros((L, K, 4 + Z // L)))
    empty = build_index(coarse, fine, np.zeros((A, N + 1), np.float32), tables)
    model = Model(params, views, centroids, generator)
    index = with_model(empty, model, jnp.zeros(N + 1))
    of_users = side.coarse, side.fine, side.history, side.archetype, side.belief
    expected = user_query(model, index.tables, *of_users, side.alpha)
    _, states, tastes = user_vectors(model, *of_users)
    content = 1.1 * np.asarray(states) @ np.asarray(params["params"]["dense_in"]).T
    liked = CONFIG.likeness * np.asarray(tastes.by_modality)
    content = np.broadcast_to(content[:, None], liked.shape), liked
    content = np.concatenate(content, axis=-1)
    for _ in range(2):
        seen = 0
        for query, rows, n in hdnag_queries(model, index, side, batch=8):
            assert len(query.archetype) == 8
            for name in ("vector", "coarse", "fine", "archetype"):
                np.testing.assert_allclose(
                    getattr(query, name)[:n], getattr(expected, name)[rows], atol=1e-4
                )
            np.testing.assert_allclose(query.dense.content[:n], content[rows], atol=1e-4)
            np.testing.assert_allclose(
                query.dense.content[:n], expected.dense.content[rows], atol=1e-4
            )
            np.testing.assert_array_equal(query.dense.alpha[:n], side.alpha[rows])
            np.testing.assert_array_equal(query.dense.history[:n], side.history[rows])
            seen += n
        assert seen == U


def test_the_normalised_score_is_the_log_probability_of_the_codes():
    rng = np.random.default_rng(1)
    B, d = 3, 2
    coarse, fine = rng.normal(size=(B, C)), rng.normal(size=(B, L, K))
    codewords, condition = rng.normal(size=(L, K, d + 1)), rng.normal(size=(C, L, d))
    as_float = [jnp.asarray(a, jnp.float32) for a in (coarse, fine, codewords, condition)]
    query = Query(jnp.zeros((B, 1)), as_float[0], as_float[1], jnp.zeros(B, jnp.int32))
    found = normalised(query, *as_float[2:], jnp.float32(0.5))
    r = np.einsum("cld,lkd->clk", condition, codewords[..., :d])
    for b in range(B):
        p_coarse = np.exp(coarse[b] / 0.5) / np.exp(coarse[b] / 0.5).sum()
        for c, f in ((0, (1, 2, 3, 4)), (4, (7, 0, 0, 5))):
            logit = fine[b] + r[c]
            p_fine = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
            bias = sum(r[c, j, v] for j, v in enumerate(f))
            score = found.coarse[b, c] + sum(fine[b, j, v] for j, v in enumerate(f)) + bias
            expected = np.log(p_coarse[c]) + sum(np.log(p_fine[j, v]) for j, v in enumerate(f))
            np.testing.assert_allclose(score, expected, rtol=1e-5)
