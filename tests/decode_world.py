"""A small catalogue for the tests of the search, and the slow, obvious answers to it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from semid_jax.decode.index import Index, build_index
from semid_jax.decode.score import Query, Tables, make_query
from semid_jax.decode.topk import tie_hash

N, A, B, C, D, L, K, d = 300, 3, 7, 12, 8, 4, 16, 5


class World:
    """A small catalogue and a batch of users, with the index and the arrays it came from."""

    def __init__(self, kind: str = "random", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        archetypes = 1 if kind == "one archetype" else A
        coarse = np.repeat(rng.integers(0, C, (1, N + 1)), archetypes, axis=0)
        fine = np.repeat(rng.integers(0, K, (1, N + 1, L)), archetypes, axis=0)
        for a in range(1, archetypes):  # each archetype moves some codes of a third of the items
            moved = rng.random(N + 1) < 0.3
            coarse[a, moved] = rng.integers(0, C, moved.sum())
            fine[a, rng.random((N + 1, L)) < 0.1] = 3
        if kind == "half in one cell":
            coarse[:, : N // 2] = 5
        if kind == "constant codes":
            coarse[:], fine[:] = 2, 1
        tables = Tables(
            jnp.asarray(rng.normal(size=(C, D)), jnp.float32),
            jnp.asarray(rng.normal(size=(L, K, d)), jnp.float32),
        )
        low_rank = rng.normal(size=(C, L, K)).astype(np.float32)
        bias = np.take_along_axis(low_rank[coarse], fine[..., None], axis=-1)[..., 0].sum(-1)
        vector = rng.normal(size=(B, D + L * d + 1)).astype(np.float32)
        if kind == "equal scores":  # a query of zeros leaves the bias, and that is zero
            vector[:], bias = 0, 0 * bias
        vector[:, -1] = 1
        self.coarse, self.fine, self.bias = coarse.astype(np.int32), fine.astype(np.uint8), bias
        self.archetype = rng.integers(0, archetypes, B).astype(np.int32)
        self.tables = tables
        self.query: Query = make_query(jnp.asarray(vector), tables, jnp.asarray(self.archetype))
        self.index: Index = build_index(self.coarse, self.fine, bias, tables)

    def scores(self) -> np.ndarray:
        """float32[B, N + 1], item by item and digit by digit; -inf for item 0."""
        table, digits = np.asarray(self.query.coarse), np.asarray(self.query.fine)
        scores = np.full((B, N + 1), -np.inf, np.float32)
        for b, a in enumerate(self.archetype):
            for i in range(1, N + 1):
                score = table[b, self.coarse[a, i]]
                for j in range(L):
                    score = np.float32(score + digits[b, j, self.fine[a, i, j]])
                scores[b, i] = np.float32(score + np.float32(self.bias[a, i]))
        return scores

    def ranked(self, scores: np.ndarray) -> list[list[int]]:
        """Items of finite score per user, best first, ties by hash."""
        hashes = tie_hash(np.arange(N + 1))
        return [
            sorted(
                (i for i in range(N + 1) if row[i] > -np.inf), key=lambda i: (-row[i], hashes[i])
            )
            for row in scores
        ]

    def inside_best_cells(self, scores: np.ndarray, probes: int) -> np.ndarray:
        """The scores with -inf for items outside the user's best cells."""
        best = np.argsort(-np.asarray(self.query.coarse), axis=1, kind="stable")[:, :probes]
        inside = [
            np.isin(self.coarse[a], cells) for a, cells in zip(self.archetype, best, strict=True)
        ]
        return np.where(inside, scores, -np.inf)


KINDS = ["random", "one archetype", "half in one cell", "constant codes", "equal scores"]


def expect_lists(found, world: World, scores: np.ndarray, k: int) -> None:
    """Asserts the very items, order and floats that a sort of the scores gives."""
    ranked = world.ranked(scores)
    for b in range(B):
        want = ranked[b][:k]
        np.testing.assert_array_equal(found.items[b], want + [0] * (k - len(want)))
        np.testing.assert_array_equal(found.scores[b, : len(want)], scores[b, want])
        assert np.all(np.asarray(found.scores[b, len(want) :]) == -np.inf)


def large(seed=0, items=20_000, topics=40):
    """A catalogue like a quantised one: items of a cell have alike codes, and so have queries."""
    rng = np.random.default_rng(seed)
    usual = rng.integers(0, K, (topics, L))
    coarse = rng.integers(0, topics, (1, items + 1))
    fine = usual[coarse]
    moved = rng.random(fine.shape) < 0.3
    fine[moved] = rng.integers(0, K, moved.sum())
    words = rng.normal(size=(L, K, d)).astype(np.float32)
    tables = Tables(jnp.asarray(rng.normal(size=(topics, 8)), jnp.float32), jnp.asarray(words))
    bias = 0.1 * rng.normal(size=(1, items + 1))
    index = build_index(coarse.astype(np.int32), fine.astype(np.uint8), bias, tables)
    basis = rng.normal(size=(4, 8 + L * d))
    vector = rng.normal(size=(64, 4)) @ basis
    vector = np.concatenate([vector, np.ones((64, 1))], axis=1).astype(np.float32)
    return index, make_query(jnp.asarray(vector), tables, jnp.zeros(64, jnp.int32))
