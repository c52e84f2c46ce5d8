"""RPG against its equations in plain numpy; its graph search against a slow walk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_models import random_params, slow_trunk

from semid_jax.decode.exact import retrieve_exact, score_items
from semid_jax.decode.rpg_graph import Graph, build_graph, retrieve_rpg_graph
from semid_jax.decode.topk import tie_hash
from semid_jax.eval.rpg import rpg_queries
from semid_jax.eval.users import Users
from semid_jax.models.rpg import Rpg, RpgConfig, digit_loss
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.quantize.static import make_static_ids, residual_codes
from semid_jax.recommenders.rpg import one_cell_index
from semid_jax.types import InputError, ItemFeatures

N, T, D, L, K, U, TAU = 40, 6, 8, 4, 8, 5, 0.1


def catalogue(kind="hierarchical", **settings):
    rng = np.random.default_rng(0)
    x = {
        "text": rng.normal(size=(N + 1, 10)).astype(np.float32),
        "image": rng.normal(size=(N + 1, 5)).astype(np.float32),
    }
    x["image"][3] = 0
    features = ItemFeatures(x, {name: np.arange(N + 1) > 0 for name in x})
    config = QuantizeConfig(kind=kind, codewords=K, iterations=5, **settings)
    return make_static_ids(features, np.arange(N + 1) > 0, config)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    ids = catalogue(cells=1, digits=L)
    model = Rpg(RpgConfig(width=D, layers=2, heads=2, temperature=TAU), L, K, T)
    history = rng.integers(1, N + 1, (U, T)).astype(np.int32)
    history[1, 4:] = 0
    fine = jnp.asarray(ids.fine)
    params, p = random_params(model, fine[history], history > 0, rng=rng)
    index = one_cell_index(ids, D)
    tables = index.tables.replace(fine=model.apply(params, method="tables"))
    return model, params, p, ids, index.replace(tables=tables), history


def log_probabilities(p, ids, history):
    """log p_j(v) after each item of one history, from the paper's equations: [T, L, K]."""
    real = history[history > 0]
    codes = p["codes"][np.arange(L), ids.fine[real].astype(int)]  # [t, L, D]
    states = slow_trunk(codes.mean(axis=1) * np.sqrt(D * L), p["trunk"], 2, 2)
    out = np.zeros((len(real), L, K))
    for t, s in enumerate(states):
        for j in range(L):
            turned = s @ p["digit_heads"][j]
            g = s + turned / (1 + np.exp(-turned))
            cosine = p["codes"][j] @ g / np.linalg.norm(p["codes"][j], axis=1) / np.linalg.norm(g)
            out[t, j] = cosine / TAU - np.log(np.exp(cosine / TAU).sum())
    return out


def test_loss_is_the_mean_over_digits_of_the_cross_entropy(made):
    model, params, p, ids, _, history = made
    rng = np.random.default_rng(1)
    targets, weight = rng.integers(1, N + 1, T), rng.random(T).astype(np.float32)
    states, shared = model.apply(params, ids.fine[history[:1]], jnp.asarray(history[:1] > 0))
    found = digit_loss(states[0], shared, jnp.asarray(ids.fine)[targets], jnp.asarray(weight), TAU)
    slow = log_probabilities(p, ids, history[0])
    each = [np.mean([slow[t, j, ids.fine[targets[t], j]] for j in range(L)]) for t in range(T)]
    np.testing.assert_allclose(found, -np.sum(weight * each), rtol=1e-3)


def test_score_is_the_sum_of_log_probabilities_up_to_a_constant_of_the_user(made):
    model, params, p, ids, index, history = made
    side = Users(np.arange(U), history, history[:, 0])
    fine = jnp.asarray(ids.fine)
    for query, rows, n in rpg_queries(model, params, index, fine, side, shows_bar=False):
        items = np.broadcast_to(np.arange(1, N + 1), (n, N))
        found = np.asarray(score_items(index, query, jnp.asarray(items)))
        for row, user in enumerate(range(rows.start, rows.stop)):
            last = log_probabilities(p, ids, history[user])[-1]
            slow = last[np.arange(L), ids.fine[1:].astype(int)].sum(axis=1)
            np.testing.assert_allclose(
                found[row] - found[row].mean(), slow - slow.mean(), atol=2e-2, rtol=1e-3
            )


def test_graph_joins_the_items_of_most_alike_digits(made):
    index = made[4]
    graph = np.asarray(build_graph(index, 5).neighbours)
    words = np.asarray(index.tables.fine)
    fine = made[3].fine
    similar = np.zeros((N + 1, N + 1))
    for i in range(1, N + 1):
        for j in range(1, N + 1):
            cosine = [words[t, fine[i, t]] @ words[t, fine[j, t]] for t in range(L)]
            similar[i, j] = np.mean([(1 + c) / 2 for c in cosine])
    for i in range(1, N + 1):
        assert len(set(graph[i])) == 5
        worst = similar[i, graph[i]].min()
        assert (similar[i] > worst + 1e-5).sum() <= 5


def test_graph_search_walks_as_the_slow_one(made):
    model, params, _, ids, index, history = made
    graph = build_graph(index, 6)
    side = Users(np.arange(U), history, history[:, 0])
    ((query, _, _),) = rpg_queries(model, params, index, jnp.asarray(ids.fine), side, False)
    beam, hops, k = 4, 2, 7
    found = retrieve_rpg_graph(index, graph, query, k, beam, hops, seed=3)
    every = np.broadcast_to(np.arange(N + 1), (U, N + 1))
    scores = np.asarray(score_items(index, query, jnp.asarray(every)))
    start = np.asarray(jax.random.randint(jax.random.key(3), (U, beam), 1, N + 1))
    hashes = tie_hash(np.arange(N + 1))
    near = np.asarray(graph.neighbours)

    def best(u, items):
        return sorted(items, key=lambda item: (-scores[u, item], hashes[item]))[: max(k, beam)]

    for u in range(U):
        kept = best(u, set(start[u].tolist()))
        for _ in range(hops):
            met = set(kept) | {int(i) for item in kept[:beam] for i in near[item]}
            kept = best(u, met)
        expected = kept[:k]
        assert np.asarray(found.items)[u].tolist() == expected + [0] * (k - len(expected))


def test_graph_search_over_all_edges_is_exact(made):
    model, params, _, ids, index, history = made
    every = np.tile(np.arange(1, N + 1), (N + 1, 1))
    side = Users(np.arange(U), history, history[:, 0])
    ((query, _, _),) = rpg_queries(model, params, index, jnp.asarray(ids.fine), side, False)
    found = retrieve_rpg_graph(index, Graph(jnp.asarray(every)), query, 10, 1, 1)
    exact = retrieve_exact(index, query, 10)
    np.testing.assert_array_equal(found.items, exact.items)
    np.testing.assert_array_equal(found.scored, N)


def test_a_last_digit_makes_residual_codes_distinct():
    ids = catalogue("residual", cells=3, digits=1)
    codes = residual_codes(ids)
    assert codes.shape == (N + 1, 3)
    np.testing.assert_array_equal(codes[1:, :2], np.stack([ids.coarse, ids.fine[:, 0]], 1)[1:])
    assert len(np.unique(codes[1:], axis=0)) == N
    for alike in np.unique(codes[1:, :2], axis=0):
        rows = (codes[1:, :2] == alike).all(axis=1)
        assert codes[1:][rows, 2].tolist() == list(range(rows.sum()))


def test_too_many_items_of_one_code_are_refused():
    ids = catalogue("residual", cells=1, digits=1)
    many = np.zeros((300, 1), np.uint8)
    with pytest.raises(InputError, match=r"raise quantize\.digits"):
        residual_codes(dataclasses.replace(ids, coarse=np.zeros(300, np.int32), fine=many))
