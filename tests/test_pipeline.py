import collections
import dataclasses

import numpy as np
import pytest

from semid_jax.data.pipeline import (
    PipelineConfig,
    TrainBatches,
    count_targets,
    cut_windows,
    iterator,
    slide_windows,
    view_windows,
)
from semid_jax.types import InputError, Interactions

CONFIG = PipelineConfig(batch_size=12, group=4, max_length=20, buckets=(5, 10, 50), seed=7)


@pytest.fixture
def interactions():
    lengths = np.random.default_rng(0).integers(3, 70, 90)
    lengths[:3] = (3, 4, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.arange(1, offsets[-1] + 1).astype(np.int32)  # an item's number gives its place away
    return Interactions(np.arange(90).astype(str), items, offsets, None, int(offsets[-1]))


@pytest.fixture
def archetypes(interactions):
    return np.random.default_rng(1).integers(0, 3, len(interactions.items)).astype(np.int8)


def epoch_of(batches, epoch=0):
    steps = batches.steps_per_epoch
    return [batches[step] for step in range(epoch * steps, (epoch + 1) * steps)]


def test_windows_cover_every_target_of_the_train_part_once(interactions):
    windows = cut_windows(interactions, 20)
    targets = np.concatenate(
        [np.arange(a + 1, b) for a, b in zip(windows.start, windows.end, strict=True)]
    )
    expected = [
        place
        for user in range(interactions.n_users)
        for place in range(interactions.offsets[user] + 1, interactions.offsets[user + 1] - 2)
    ]
    assert sorted(targets.tolist()) == expected
    assert (windows.end - windows.start).max() == 21
    np.testing.assert_array_equal(windows.first_target, windows.start + 1)


def test_a_window_is_seen_as_each_archetype_of_its_user_once(interactions, archetypes):
    windows = cut_windows(interactions, 20)
    views = view_windows(windows, archetypes)
    expected = []
    for start, end in zip(windows.start, windows.end, strict=True):
        was = archetypes[start + 1 : end].tolist()
        expected += [(start, end, start + 1 + was.index(k), k) for k in sorted(set(was))]
    found = zip(views.start, views.end, views.first_target, views.archetype, strict=True)
    assert [tuple(map(int, view)) for view in found] == expected
    assert views.archetype.dtype == np.int32


def test_what_a_target_is_trained_in_does_not_hang_on_later_items(interactions, archetypes):
    def trained(before):
        views = view_windows(cut_windows(interactions, 20), before)
        places = zip(views.first_target, views.end, views.archetype, strict=True)
        return {(place, kind) for first, end, kind in places for place in range(first, end)}

    cut = len(archetypes) // 2
    later = np.where(np.arange(len(archetypes)) < cut, archetypes, (archetypes + 1) % 3)
    one, other = trained(archetypes), trained(later)
    assert one != other
    assert {pair for pair in one ^ other if pair[0] < cut} == set()


def test_every_view_is_drawn_equally_often(interactions, archetypes):
    batches = TrainBatches(interactions, CONFIG, archetypes)
    views = view_windows(cut_windows(interactions, CONFIG.max_length), archetypes)
    epochs = 300
    drawn = [batches.plan(epoch) for epoch in range(epochs)]
    rows = np.concatenate([plan.window[plan.bears_loss] for plan in drawn])
    often = np.bincount(rows, minlength=len(views)) / epochs
    assert np.all(np.abs(often / often.mean() - 1) < 0.35)  # 4 deviations of 300 draws at .35


def test_an_epoch_has_as_many_targets_as_without_archetypes(interactions, archetypes):
    plain = TrainBatches(interactions, CONFIG)
    assert plain.n_windows == len(cut_windows(interactions, CONFIG.max_length))
    wanted = sum(count_targets(batch) for batch in epoch_of(plain))
    views = TrainBatches(interactions, CONFIG, archetypes)
    epochs = 100
    found = [
        sum(count_targets(batch) for batch in epoch_of(views, epoch)) for epoch in range(epochs)
    ]
    assert views.n_windows > plain.n_windows
    assert np.mean(found) == pytest.approx(wanted, rel=0.05)


def test_sliding_windows_have_one_target_each_and_all_that_was_before(interactions):
    windows = slide_windows(interactions, 20)
    expected = [
        (max(place - 20, interactions.offsets[user]), place)
        for user in range(interactions.n_users)
        for place in range(interactions.offsets[user] + 1, interactions.offsets[user + 1] - 2)
    ]
    assert list(zip(windows.start, windows.end - 1, strict=True)) == expected
    batches = TrainBatches(interactions, dataclasses.replace(CONFIG, sliding=True))
    seen = [batches[i] for i in range(batches.steps_per_epoch)]
    for batch in seen:
        inputs, targets = batch["inputs"], batch["targets"]
        last = (inputs > 0).sum(axis=1) - 1
        assert (np.count_nonzero(targets, axis=1) <= 1).all()
        rows = np.flatnonzero(targets.any(axis=1))
        np.testing.assert_array_equal(targets[rows].argmax(axis=1), last[rows])


def test_rows_are_slices_and_targets_the_next_items(interactions, archetypes):
    batches = TrainBatches(interactions, CONFIG, archetypes)
    windows = view_windows(cut_windows(interactions, CONFIG.max_length), archetypes)
    plan = batches.plan(0)
    for step, batch in enumerate(epoch_of(batches)):
        width = batch["inputs"].shape[1]
        assert width in batches.widths
        for row in range(CONFIG.batch_size):
            window = int(batch["example"][row])
            items = interactions.items[windows.start[window] : windows.end[window]].tolist()
            padding = [0] * (width - len(items) + 1)
            assert batch["inputs"][row].tolist() == items[:-1] + padding
            first = windows.first_target[window] - windows.start[window]
            bears = plan.bears_loss[step, row]
            wanted = [item if at >= first and bears else 0 for at, item in enumerate(items)][1:]
            assert batch["targets"][row].tolist() == wanted + padding
            assert batch["archetype"][row] == windows.archetype[window]
        assert {k: v.dtype.name for k, v in batch.items()} == {
            "inputs": "int32",
            "targets": "int32",
            "archetype": "int32",
            "example": "uint32",
        }


def test_what_is_believed_is_that_before_each_target(interactions, archetypes):
    n = len(interactions.items)
    belief = np.arange(2 * n, dtype=np.float16).reshape(n, 1, 2)
    windows = view_windows(cut_windows(interactions, CONFIG.max_length), archetypes)
    for batch in epoch_of(TrainBatches(interactions, CONFIG, archetypes, belief)):
        assert batch["belief"].dtype == np.float16
        for row, window in enumerate(batch["example"] % len(windows)):
            places = np.flatnonzero(batch["targets"][row])
            expected = belief[windows.start[window] + 1 + places]
            np.testing.assert_array_equal(batch["belief"][row, places], expected)


def test_groups_share_their_archetype(interactions, archetypes):
    for batch in epoch_of(TrainBatches(interactions, CONFIG, archetypes)):
        groups = batch["archetype"].reshape(-1, CONFIG.group)
        assert np.all(groups == groups[:, :1])


def test_an_epoch_shows_each_target_at_most_once_and_drops_little(interactions):
    batches = TrainBatches(interactions, CONFIG)
    rows = [row for batch in epoch_of(batches) for row in batch["targets"]]
    counts = collections.Counter(np.concatenate(rows).tolist())
    del counts[0]
    assert set(counts.values()) == {1}
    windows = cut_windows(interactions, CONFIG.max_length)
    total = int(np.sum(windows.end - windows.start - 1))
    assert sum(counts.values()) >= 0.8 * total
    assert sum(counts.values()) == sum(count_targets(batch) for batch in epoch_of(batches))


def test_no_batch_is_padded_to_the_longest_user(interactions):
    batches = TrainBatches(interactions, CONFIG)
    assert batches.widths == (5, 10, 20)
    seen = {batch["inputs"].shape[1] for batch in epoch_of(batches)}
    assert len(seen) > 1
    assert max(seen) <= CONFIG.max_length


def test_epochs_differ_but_have_the_same_number_of_steps(interactions, archetypes):
    batches = TrainBatches(interactions, CONFIG, archetypes)
    assert batches.steps_per_epoch == -(-batches.n_windows // CONFIG.batch_size)
    plans = [batches.plan(epoch) for epoch in range(4)]
    assert {len(plan.width) for plan in plans} == {batches.steps_per_epoch}
    assert not np.array_equal(plans[0].window, plans[1].window)
    examples = [batch["example"] for epoch in (0, 1) for batch in epoch_of(batches, epoch)]
    first, second = np.split(np.concatenate(examples), 2)
    views = view_windows(cut_windows(interactions, CONFIG.max_length), archetypes)
    assert first.max() < len(views) <= second.min()


def test_batches_are_a_function_of_seed_and_step(interactions, archetypes):
    one = TrainBatches(interactions, CONFIG, archetypes)
    other = TrainBatches(interactions, CONFIG, archetypes)
    for step in (500, 3, 77, 0):
        for name, values in one[step].items():
            np.testing.assert_array_equal(values, other[step][name])


def test_iterator_resumes_exactly(interactions, archetypes):
    batches = TrainBatches(interactions, CONFIG, archetypes)
    steps = 2 * batches.steps_per_epoch + 3
    stream = iterator(batches)
    for step in range(steps):
        batch = next(stream)
        np.testing.assert_array_equal(batch["inputs"], batches[step]["inputs"])
    state = stream.get_state()
    expected = [next(stream) for _ in range(5)]
    resumed = iterator(TrainBatches(interactions, CONFIG, archetypes))
    resumed.set_state(state)
    started = iterator(TrainBatches(interactions, CONFIG, archetypes), start=steps)
    for batch in expected:
        for again in (next(resumed), next(started)):
            for name, values in batch.items():
                np.testing.assert_array_equal(values, again[name])


def test_fewer_windows_than_a_batch_still_make_one(interactions):
    few = Interactions(
        interactions.user_ids[:2], interactions.items[:7], interactions.offsets[:3], None, 9
    )
    batches = TrainBatches(few, CONFIG)
    assert batches.steps_per_epoch == batches.n_windows == 1
    assert batches[0]["inputs"].shape[0] == CONFIG.batch_size
    assert count_targets(batches[0]) == 1


def test_wrong_settings_are_named(interactions):
    with pytest.raises(InputError, match=r"group = 5 does not divide batch_size = 12"):
        TrainBatches(interactions, PipelineConfig(batch_size=12, group=5))
    short = Interactions(
        interactions.user_ids[:1], interactions.items[:3], interactions.offsets[:2], None, 3
    )
    with pytest.raises(InputError, match=r"every history is 3 items long"):
        TrainBatches(short, CONFIG)
    with pytest.raises(ValueError, match="aligned"):
        TrainBatches(interactions, CONFIG, np.zeros(3, np.int8))
