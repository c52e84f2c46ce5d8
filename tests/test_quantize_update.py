"""The incremental update of a read side against a loop over users, items and codes."""

import numpy as np
import pytest

from semid_jax.quantize import codebook as books
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.update import affordable, nearest_codes, update_codes

N, T, L, D, MARGIN = 3, 7, 4, 8, 0.3


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def world(absolute, seed=0):
    rotation = np.linalg.qr(random(D, D, seed=3))[0].astype(np.float32)
    book = Codebook(
        coarse=random(5, D, seed=1),
        rotation=rotation,
        fine=random(L, 6, 2, seed=2),
        kind="hierarchical",
        absolute=absolute,
    )
    old = random(N, T, D, seed=seed + 4)
    coarse, fine = (
        np.asarray(code).reshape(N, T, *np.shape(code)[1:])
        for code in books.encode(book, old.reshape(-1, D))
    )
    mask = np.arange(T) < np.array([[T], [T - 3], [2]])
    return book, old, coarse, fine, mask


def test_digits_that_archetypes_share_stay():
    book, _, coarse, fine, mask = world(True)
    now = random(N, T, D, seed=99)
    more = np.concatenate([fine, np.full((N, T, 2), 7, np.uint8)], axis=-1)
    alone = update_codes(
        book, now, nearest_codes(book, now, coarse), coarse, fine, mask, MARGIN, 1.0
    )
    found = update_codes(
        book, now, nearest_codes(book, now, coarse), coarse, more, mask, MARGIN, 1.0
    )
    np.testing.assert_array_equal(found[0], alone[0])
    np.testing.assert_array_equal(found[1][..., :L], alone[1])
    assert (alone[1] != fine).any()
    assert (found[1][..., L:] == 7).all()


def distances(book, z, cell):
    """To all cells [C] and, digit by digit, to all codewords [L, K], of one item."""
    base = np.zeros(D) if book.absolute else np.asarray(book.coarse[cell])
    rotated = (z - base) @ book.rotation
    to_cell = ((z - book.coarse) ** 2).sum(axis=1)
    to_digit = [((rotated[2 * j : 2 * j + 2] - book.fine[j]) ** 2).sum(axis=1) for j in range(L)]
    return to_cell, np.stack(to_digit)


def slow_update(book, z, coarse, fine, mask, budget):
    """Lists every move with its saving, then spends the budget: digits first, largest first."""
    places = [(u, t) for u in range(N) for t in range(T) if mask[u, t]]
    table = {p: distances(book, z[p], coarse[p]) for p in places}
    new_coarse, new_fine = coarse.copy(), fine.copy()
    for u in range(N):
        moves, own = [], [p for p in places if p[0] == u]
        mean_cell = np.mean([table[p][0][coarse[p]] for p in own])
        mean_digit = np.mean([table[p][1][j, fine[p][j]] for p in own for j in range(L)])
        for t in range(T):
            if not mask[u, t]:
                continue
            to_cell, to_digit = table[u, t]
            for j in range(L):
                gain = (to_digit[j, fine[u, t, j]] - to_digit[j].min()) / mean_digit
                if gain > MARGIN:
                    moves.append((0, -gain, t, j, int(to_digit[j].argmin())))
            gain = (to_cell[coarse[u, t]] - to_cell.min()) / mean_cell
            if gain > MARGIN:
                moves.append((1, -gain, t, -1, int(to_cell.argmin())))
        left = budget * mask[u].sum() * (1 + L)
        for is_cell, _, t, j, code in sorted(moves):
            left -= 1 + L if is_cell and not book.absolute else 1
            if left < 0:
                break
            if not is_cell:
                new_fine[u, t, j] = code
            else:
                new_coarse[u, t] = code
                if not book.absolute:
                    _, to_digit = distances(book, z[u, t], code)
                    new_fine[u, t] = to_digit.argmin(axis=1)
    return new_coarse, new_fine


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5, 1.0])
def test_update_agrees_with_a_loop(absolute, budget):
    book, old, coarse, fine, mask = world(absolute)
    z = old + 0.8 * random(N, T, D, seed=9)
    found = update_codes(
        book, z, nearest_codes(book, z, coarse), coarse, fine, mask, MARGIN, budget
    )
    expected = slow_update(book, z, coarse, fine, mask, budget)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(ours)[mask], theirs[mask])
        np.testing.assert_array_equal(np.asarray(ours)[~mask], theirs[~mask])


@pytest.mark.parametrize("most", [0.0, 0.5, 3.0, 7.0, 40.0, 1e6])
def test_what_is_affordable_is_what_a_sort_says(most):
    rng = np.random.default_rng(0)
    key = rng.choice([0.0, 1e-30, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0], (5, 30)).astype(np.float32)
    key[4] = 0.5  # nothing but ties
    cost = rng.choice([0.0, 1.0, 5.0], (5, 30)).astype(np.float32)
    found = np.asarray(affordable(key, cost, np.full((5, 1), most, np.float32)))
    for row in range(5):
        order = np.argsort(key[row], kind="stable")
        expected = np.zeros(30, bool)
        expected[order] = np.cumsum(cost[row][order]) <= most
        np.testing.assert_array_equal(found[row], expected)


@pytest.mark.parametrize("absolute", [True, False])
def test_unchanged_items_keep_their_codes(absolute):
    book, old, coarse, fine, mask = world(absolute)
    found = update_codes(book, old, nearest_codes(book, old, coarse), coarse, fine, mask, 0.0, 1.0)
    np.testing.assert_array_equal(found[0], coarse)
    np.testing.assert_array_equal(found[1], fine)


def test_no_more_than_the_budget_moves():
    book, old, coarse, fine, mask = world(True)
    z = old + random(N, T, D, seed=9)
    moved_coarse, moved_fine = update_codes(
        book, z, nearest_codes(book, z, coarse), coarse, fine, mask, 0.0, 0.2
    )
    moves = (np.asarray(moved_coarse) != coarse).sum(axis=1)
    moves += (np.asarray(moved_fine) != fine).sum(axis=(1, 2))
    assert (moves <= 0.2 * mask.sum(axis=1) * (1 + L)).all()
    assert (moves[:2] > 0).all()


def test_a_users_update_does_not_depend_on_the_batch():
    book, old, coarse, fine, mask = world(True)
    z = old + random(N, T, D, seed=9)
    together = update_codes(
        book, z, nearest_codes(book, z, coarse), coarse, fine, mask, MARGIN, 0.2
    )
    for u in range(N):
        one = slice(u, u + 1)
        alone = update_codes(
            book,
            z[one],
            nearest_codes(book, z[one], coarse[one]),
            coarse[one],
            fine[one],
            mask[one],
            MARGIN,
            0.2,
        )
        for ours, theirs in zip(alone, together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[u])


def test_with_the_whole_budget_and_no_margin_it_is_the_full_re_encode():
    book, old, coarse, fine, _ = world(True)
    z = old + random(N, T, D, seed=9)
    everything = np.ones((N, T), bool)
    found = update_codes(
        book, z, nearest_codes(book, z, coarse), coarse, fine, everything, 0.0, 1.0
    )
    expected = books.encode(book, z.reshape(-1, D))
    np.testing.assert_array_equal(np.asarray(found[0]).reshape(-1), expected[0])
    np.testing.assert_array_equal(np.asarray(found[1]).reshape(-1, L), expected[1])
