import numpy as np
import pytest

from semid_jax.data.source import clean, describe
from semid_jax.types import Catalogue, InputError

NOTHING = np.zeros(0, np.int32)


def make_catalogue(n_items: int) -> Catalogue:
    numbers = [str(number) for number in range(1, n_items + 1)]
    vectors = np.arange(2.0 * (n_items + 1), dtype=np.float32).reshape(-1, 2)
    vectors[0] = np.nan
    return Catalogue(
        item_ids=np.array(["", *numbers]),
        titles=np.array(["", *(f"title {number}" for number in numbers)]),
        categories=np.array([""] * (n_items + 1)),
        vectors={"text": vectors},
        tokens={"attributes": (NOTHING, *(np.array([k], np.int32) for k in range(n_items)))},
    )


def cleaned(rows, n_items=6, with_times=True, **kwargs):
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    user_ids = np.array([f"u{k}" for k in range(users.max() + 1)])
    return clean(
        user_ids, users, items, times if with_times else None, make_catalogue(n_items), **kwargs
    )


def test_histories_stay_in_order_and_items_are_renumbered():
    data = cleaned([(0, 5, 10), (0, 2, 11), (0, 5, 12), (1, 6, 1), (1, 2, 2), (1, 6, 3)])
    np.testing.assert_array_equal(data.interactions.offsets, [0, 3, 6])
    np.testing.assert_array_equal(data.interactions.items, [2, 1, 2, 3, 1, 3])
    assert data.catalogue.item_ids.tolist() == ["", "2", "5", "6"]
    assert data.catalogue.titles[2] == "title 5"
    np.testing.assert_array_equal(data.catalogue.vectors["text"][3], [12, 13])
    assert [bag.tolist() for bag in data.catalogue.tokens["attributes"]] == [[], [1], [4], [5]]
    assert data.interactions.n_items == data.catalogue.n_items == 3
    assert data.notes["items_without_interactions"] == 3


def test_repeated_triples_are_dropped_and_counted_but_later_repeats_stay():
    rows = [(0, 1, 5), (0, 2, 6), (0, 1, 5), (0, 1, 7), (0, 1, 5)]
    data = cleaned(rows)
    assert data.notes["duplicates_dropped"] == 2
    np.testing.assert_array_equal(data.interactions.items, [1, 2, 1])
    np.testing.assert_array_equal(data.interactions.times, [5, 6, 7])
    assert cleaned(rows, with_times=False).notes["duplicates_dropped"] == 0


def test_unsorted_times_are_sorted_stably_and_the_users_counted():
    rows = [(0, 1, 3), (0, 2, 1), (0, 3, 1), (1, 1, 1), (1, 2, 1), (1, 3, 2)]
    data = cleaned(rows)
    assert data.notes["users_reordered"] == 1
    np.testing.assert_array_equal(data.interactions.items, [2, 3, 1, 1, 2, 3])
    assert "1 users reordered" in describe(data)


def test_interleaved_users_keep_their_own_order_and_count_as_sorted():
    data = cleaned([(1, 3, 1), (0, 1, 9), (1, 2, 2), (0, 2, 10), (1, 1, 3), (0, 3, 11)])
    assert data.notes["users_reordered"] == 0
    np.testing.assert_array_equal(data.interactions.items, [1, 2, 3, 3, 2, 1])


def test_short_users_are_dropped_and_counted_after_duplicates():
    rows = [(0, 1, 1), (0, 1, 1), (0, 2, 2), (1, 1, 1), (1, 2, 2), (1, 3, 3)]
    data = cleaned(rows)
    assert data.notes["users_too_short"] == 1
    assert data.interactions.user_ids.tolist() == ["u1"]
    assert "1 users too short" in describe(data)


def test_nobody_left_is_an_error():
    with pytest.raises(InputError, match=r"a\.inter: no user has 4 or more interactions"):
        cleaned([(0, 1, 1), (0, 2, 2), (0, 3, 3)], min_interactions=4, source="a.inter")


def test_min_interactions_below_three_is_an_error():
    with pytest.raises(InputError, match=r"data\.min_interactions = 2"):
        cleaned([(0, 1, 1)], min_interactions=2)


def test_against_a_slow_version():
    rng = np.random.default_rng(0)
    rows = [tuple(row) for row in np.stack([rng.integers(0, n, 300) for n in (20, 6, 8)], 1)]
    rows = [(int(u), int(i) + 1, int(t)) for u, i, t in rows]
    data = cleaned(rows, min_interactions=5)
    slow = {}
    for user in range(20):
        seen = []
        for row in sorted((row for row in rows if row[0] == user), key=lambda row: row[2]):
            if row not in seen:
                seen.append(row)
        if len(seen) >= 5:
            slow[f"u{user}"] = [str(item) for _, item, _ in seen]
    at = data.interactions.offsets
    fast = {
        str(name): data.catalogue.item_ids[data.interactions.items[at[k] : at[k + 1]]].tolist()
        for k, name in enumerate(data.interactions.user_ids)
    }
    assert fast == slow
