import numpy as np
import pytest

from semid_jax.data.sequences import popularity, prefixes, split_end, train_items
from semid_jax.types import Interactions

HISTORIES = [[3, 1, 4], [1, 5, 2, 6, 5, 3], [5, 3, 5, 1, 2]]


@pytest.fixture
def interactions():
    return Interactions(
        user_ids=np.array(["a", "b", "c"]),
        items=np.concatenate(HISTORIES).astype(np.int32),
        offsets=np.array([0, 3, 9, 14]),
        times=None,
        n_items=7,
    )


@pytest.mark.parametrize(("split", "held_out"), [("train", 2), ("validation", 2), ("test", 1)])
def test_split_end(interactions, split, held_out):
    expected = [len(history) - held_out for history in HISTORIES]
    np.testing.assert_array_equal(split_end(interactions, split), expected)


@pytest.mark.parametrize("max_length", [1, 3, 10])
@pytest.mark.parametrize(("split", "held_out"), [("validation", 2), ("test", 1)])
def test_prefixes_against_slices(interactions, split, held_out, max_length):
    histories, lengths, targets = prefixes(interactions, split, max_length, np.array([2, 0, 1]))
    for row, user in enumerate([2, 0, 1]):
        known = HISTORIES[user][: len(HISTORIES[user]) - held_out][-max_length:]
        assert histories[row].tolist() == known + [0] * (max_length - len(known))
        assert lengths[row] == len(known)
        assert targets[row] == HISTORIES[user][-held_out]
    assert histories.dtype == lengths.dtype == targets.dtype == np.int32


def test_popularity_counts_the_train_part_only(interactions):
    np.testing.assert_array_equal(popularity(interactions), [0, 1, 1, 2, 0, 3, 1, 0])
    np.testing.assert_array_equal(train_items(interactions), [0, 1, 1, 1, 0, 1, 1, 0])


def test_train_has_no_target(interactions):
    with pytest.raises(ValueError, match="has no target"):
        prefixes(interactions, "train", 5)
