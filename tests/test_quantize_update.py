"""The incremental update of a read side against a loop over users and items."""

import numpy as np
import pytest

from semid_jax.quantize.update import affordable, move_items

N, T, L, MARGIN = 3, 7, 4, 0.3
MASK = np.arange(T) < np.array([[T], [T - 3], [2]])


def codes(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, (N, T)), rng.integers(0, 6, (N, T, L)).astype(np.uint8)


def shifted(before, share, seed=9):
    """The same codes, some of them others."""
    rng = np.random.default_rng(seed)
    return tuple(np.where(rng.random(c.shape) < share, c + 1, c).astype(c.dtype) for c in before)


def slow_move(before, now, mask, margin, budget):
    """Lists the items worth a move, then spends the budget on those that have changed most."""
    coarse, fine = (c.copy() for c in before)
    for u in range(N):
        worth = []
        for t in np.flatnonzero(mask[u]):
            changed = int(coarse[u, t] != now[0][u, t]) + int((fine[u, t] != now[1][u, t]).sum())
            if changed > margin * (1 + L):
                worth.append((-changed, t))
        left = budget * mask[u].sum() * (1 + L)
        for changed, t in sorted(worth):
            left += changed
            if left < 0:
                break
            coarse[u, t], fine[u, t] = now[0][u, t], now[1][u, t]
    return coarse, fine


@pytest.mark.parametrize("margin", [0.0, MARGIN])
@pytest.mark.parametrize("budget", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_a_move_agrees_with_a_loop(margin, budget):
    before = codes(0)
    now = shifted(before, 0.4)
    found = move_items(before, now, MASK, margin, budget)
    for ours, theirs in zip(found, slow_move(before, now, MASK, margin, budget), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_item_moves_with_all_its_codes_or_with_none():
    before, now = codes(0), codes(1)
    coarse, fine = move_items(before, now, MASK, 0.0, 0.5)
    new = (coarse == now[0]) & (fine == now[1]).all(axis=-1)
    old = (coarse == before[0]) & (fine == before[1]).all(axis=-1)
    assert (new | old).all()
    assert (new & ~old)[MASK].any()
    assert (old & ~new)[MASK].any()
    assert old[~MASK].all()


@pytest.mark.parametrize("most", [0.0, 0.5, 3.0, 7.0, 40.0, 1e6])
def test_what_is_affordable_is_what_a_sort_says(most):
    rng = np.random.default_rng(0)
    key = rng.integers(0, 8, (5, 30)).astype(np.int32)
    key[4] = 5  # nothing but ties
    cost = rng.choice([0, 1, 5], (5, 30)).astype(np.int32)
    found = np.asarray(affordable(key, cost, np.full((5, 1), most, np.float32), 3))
    for row in range(5):
        order = np.argsort(key[row], kind="stable")
        expected = np.zeros(30, bool)
        expected[order] = np.cumsum(cost[row][order]) <= most
        np.testing.assert_array_equal(found[row], expected)


def test_no_more_than_the_budget_moves():
    before, now = codes(0), codes(1)
    coarse, fine = move_items(before, now, MASK, 0.0, 0.4)
    moved = (coarse != before[0]).sum(axis=1) + (fine != before[1]).sum(axis=(1, 2))
    assert (np.asarray(moved) <= 0.4 * MASK.sum(axis=1) * (1 + L)).all()
    assert (np.asarray(moved)[:2] > 0).all()


def test_a_users_update_does_not_depend_on_the_batch():
    before, now = codes(0), codes(1)
    together = move_items(before, now, MASK, MARGIN, 0.5)
    for u in range(N):
        one = slice(u, u + 1)
        own = ((c[one] for c in side) for side in (before, now))
        alone = move_items(*(tuple(side) for side in own), MASK[one], MARGIN, 0.5)
        for ours, theirs in zip(alone, together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[u])


def test_with_the_whole_budget_and_no_margin_all_are_encoded_anew():
    before, now = codes(0), codes(1)
    found = move_items(before, now, np.ones((N, T), bool), 0.0, 1.0)
    np.testing.assert_array_equal(found[0], now[0])
    np.testing.assert_array_equal(found[1], now[1])
