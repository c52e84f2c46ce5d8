"""Vectors of what is chosen together."""

import dataclasses

import numpy as np
import pytest

from semid_jax.features.behaviour import (
    NAME,
    behaviour_vectors,
    co_occurrences,
    mutual_information,
    with_behaviour,
)
from semid_jax.types import Catalogue, InputError, Interactions

N = 12


def make(histories):
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    users = np.arange(len(histories)).astype(str)
    return Interactions(users, np.concatenate(histories).astype(np.int32), offsets, None, N)


@pytest.fixture
def interactions():
    """Odd users choose items 1 to 5, even ones 6 to 10; nobody item 11, and 12 only in the end."""
    rng = np.random.default_rng(3)
    histories = [rng.integers(1, 6, 30) + 5 * (user % 2) for user in range(20)]
    return make([np.append(history, 12) for history in histories])


def test_pairs_are_counted_as_one_by_one(interactions):
    counts = co_occurrences(interactions, 3).toarray()
    slow = np.zeros((N + 1, N + 1))
    for user in range(interactions.n_users):
        start, end = interactions.offsets[user : user + 2]
        known = interactions.items[start : end - 2]
        for i, left in enumerate(known):
            for right in known[i + 1 : i + 4]:
                if left != right:
                    slow[left, right] += 1
                    slow[right, left] += 1
    np.testing.assert_array_equal(counts, slow)


def test_mutual_information_is_that_of_the_paper(interactions):
    counts = co_occurrences(interactions, 3)
    dense = counts.toarray()
    p = dense / dense.sum()
    of_one = p.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slow = np.log(p / np.outer(of_one, of_one))
    slow = np.where(dense > 0, np.maximum(slow, 0), 0)
    np.testing.assert_allclose(mutual_information(counts).toarray(), slow, atol=1e-12)


def test_what_is_chosen_together_is_near(interactions):
    x = behaviour_vectors(interactions, 4)
    assert x.shape[0] == N + 1
    assert np.isnan(x[[0, 11, 12]]).all()  # 12 is a test item, never seen
    unit = x[1:11] / np.linalg.norm(x[1:11], axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.arange(10)[:, None] // 5 == np.arange(10) // 5
    assert cosine[same].min() > cosine[~same].max()
    np.testing.assert_allclose(x, behaviour_vectors(interactions, 4), atol=1e-6)


def test_all_dimensions_give_the_whole_information(interactions):
    information = mutual_information(co_occurrences(interactions, 10)).toarray()
    x = np.nan_to_num(behaviour_vectors(interactions, N))
    values, vectors = np.linalg.eigh(information)
    slow = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(x @ x.T, slow, atol=1e-4)


def test_only_those_who_ask_get_it(interactions):
    names = np.arange(N + 1).astype(str)
    blank = Catalogue(item_ids=names, titles=names, categories=names, vectors={}, tokens={})
    assert with_behaviour(blank, interactions, (), 4) is blank
    made = with_behaviour(blank, interactions, (NAME,), 4)
    assert list(made.vectors) == [NAME]
    own = dataclasses.replace(blank, vectors={NAME: np.ones((N + 1, 2), np.float32)})
    assert with_behaviour(own, interactions, (NAME,), 4) is own
    with pytest.raises(InputError, match="chosen together"):
        with_behaviour(blank, make([np.array([1, 2, 3])]), (NAME,), 4)
