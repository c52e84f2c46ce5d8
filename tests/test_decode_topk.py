"""The k best with ties against a sort in Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax.decode.topk import largest, tie_hash, top_k_ties


def obvious(scores: np.ndarray, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    items = np.broadcast_to(items, scores.shape)
    hashes = tie_hash(items)
    best, values = np.zeros((len(scores), k), np.int32), np.full((len(scores), k), -np.inf)
    for b, row in enumerate(scores):
        order = sorted(range(len(row)), key=lambda i: (-row[i], hashes[b, i]))[:k]
        order = [i for i in order if row[i] > -np.inf]
        best[b, : len(order)], values[b, : len(order)] = items[b, order], row[order]
    return best, values


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_a_sort_by_score_then_hash(levels, shared):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (6, 200)).astype(np.float32) - 2
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    scores[0] = -np.inf
    scores[1, 3:] = -np.inf
    items = np.stack([rng.permutation(1000)[:200] + 1 for _ in range(6)]).astype(np.int32)
    items = items[0] if shared else items
    for k in (1, 7, 199, 200, 230):
        got = jax.jit(top_k_ties, static_argnums=2)(jnp.asarray(scores), jnp.asarray(items), k)
        want = obvious(scores, items, k)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("levels", [1, 3, 50, 300, 2000, 100_000])
def test_many_of_long_rows_equal_a_sort_too(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (11, 7001)).astype(np.float32) - 2
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    scores[0], scores[1, 3:], scores[2, 90:] = -np.inf, -np.inf, -np.inf
    items = rng.permutation(7001).astype(np.int32) + 1
    for k in (40, 100):
        found = largest(jnp.asarray(scores), k)
        np.testing.assert_array_equal(found[0], -np.sort(-scores, axis=1)[:, :k])
        at_them = np.take_along_axis(scores, np.asarray(found[1]), axis=1)
        there = np.isfinite(found[0])
        np.testing.assert_array_equal(at_them[there], np.asarray(found[0])[there])
        got = jax.jit(top_k_ties, static_argnums=2)(jnp.asarray(scores), jnp.asarray(items), k)
        want = obvious(scores, items, k)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])


def test_ties_come_by_hash_in_whatever_order_they_are_given():
    items = np.arange(1, 101, dtype=np.int32)
    by_hash = items[np.argsort(tie_hash(items))]
    for given in (by_hash, by_hash[::-1].copy()):
        best, _ = top_k_ties(jnp.ones((2, 100)), jnp.asarray(given), 10)
        np.testing.assert_array_equal(best, [by_hash[:10]] * 2)


def test_a_tie_at_rank_k_is_told_among_a_few_and_only_endless_ones_among_all():
    items = np.random.default_rng(0).permutation(1000).astype(np.int32) + 1
    pairs = np.repeat(np.arange(500, 0, -1), 2).astype(np.float32)
    for scores, asks_all in ((pairs, False), (np.ones(1000, np.float32), True)):
        widths = []

        def item_at(position, widths=widths):
            widths.append(position.shape[1])
            return jnp.asarray(items)[position]

        with jax.disable_jit():  # only what is taken of a branch runs
            found = top_k_ties(jnp.asarray([scores, scores]), item_at, 9)
        for got, want in zip(found, obvious(np.stack([scores] * 2), items, 9), strict=True):
            np.testing.assert_array_equal(got, want)
        assert (max(widths) == 1000) == asks_all


def test_zero_and_minus_zero_are_one_score():
    items = np.arange(1, 41, dtype=np.int32)
    for order in (items, items[np.argsort(tie_hash(items))]):
        for scores in ([0.0, -0.0] * 20, [-0.0] + [0.0] * 39):
            for k in (5, 40):
                best, _ = top_k_ties(jnp.asarray([scores]), jnp.asarray(order), k)
                np.testing.assert_array_equal(best[0], items[np.argsort(tie_hash(items))][:k])


def test_hash_is_one_to_one_the_same_in_numpy_and_jax_and_favours_no_end():
    items = np.arange(200_000, dtype=np.int32)
    hashes = tie_hash(items)
    assert len(np.unique(hashes)) == len(items)
    np.testing.assert_array_equal(hashes, tie_hash(jnp.asarray(items)))
    early = hashes[:100_000].mean() / hashes.mean()
    assert 0.99 < early < 1.01


def test_the_usual_case_is_no_sort_of_the_row():
    # XLA on CPU falls back to sorting all n when it no longer recognises its own top-k.
    run = jax.jit(lambda scores, items: top_k_ties(scores, items, 10))
    text = run.lower(jnp.zeros((4, 5000)), jnp.zeros(5000, jnp.int32)).compile().as_text()
    entry = text[text.index("ENTRY") :]
    assert not [line for line in entry.splitlines() if " sort(" in line and "5000" in line]
    assert "topk" in entry.lower()
