"""Training batches: windows of the train part, grouped by length and archetype, in random access.

The plan of an epoch is a function of (seed, epoch), so batch i is a function of (seed, i) and a
killed run continues with exactly the batches it would have seen.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping

import grain
import numpy as np

from semid_jax.data.sequences import check_trainable, gather_windows, split_end
from semid_jax.types import InputError, Interactions

ENDLESS = 2**31 - 1  # the loop decides how many steps to take, not the source


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How training batches are made.

    Attributes:
      batch_size: B, rows of a batch.
      group: rows that share one archetype, divides B.
      max_length: T, the longest input.
      buckets: input lengths to pad to; those below max_length are used, and max_length itself.
      sliding: one window per target, with loss on it alone, instead of windows that bear loss at
        all their positions.
      seed: of windows' order and splits.
    """

    batch_size: int = 128
    group: int = 16
    max_length: int = 50
    buckets: tuple[int, ...] = (10, 20, 50, 100)
    sliding: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Windows:
    """Cuts of the train part; window w holds positions start[w] .. end[w] of the flat items.

    Attributes:
      start: int64[n], the first input.
      end: int64[n], exclusive; the last item is only a target.
      first_target: int64[n], the first position that may bear loss; so may all behind it.
      archetype: int32[n], what the user is to be in it.
    """

    start: np.ndarray
    end: np.ndarray
    first_target: np.ndarray
    archetype: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def n_targets(self) -> int:
        """Positions that may bear loss, of all windows together."""
        return int(np.sum(self.end - self.first_target))


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """Which windows make up the batches of one epoch.

    Attributes:
      window: int64[S, B], window of each row.
      bears_loss: bool[S, B], False for rows that only fill a group.
      width: int64[S], the bucket of each batch.
    """

    window: np.ndarray
    bears_loss: np.ndarray
    width: np.ndarray


def cut_windows(interactions: Interactions, max_length: int) -> Windows:
    """Cuts every train part from its end into windows of max_length + 1, overlapping by one item.

    So every item of the train part but the first of each user is a target exactly once.

    Args:
      interactions: histories.
      max_length: T.
    """
    known = split_end(interactions, "train")
    count = np.maximum(-(-(known - 1) // max_length), 0)
    user = np.repeat(np.arange(interactions.n_users), count)
    turn = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    end = known[user] - turn * max_length
    before = np.maximum(end - max_length - 1, 0)
    first = interactions.offsets[user]
    return Windows(first + before, first + end, first + before + 1, np.zeros(len(user), np.int32))


def slide_windows(interactions: Interactions, max_length: int) -> Windows:
    """One window for every target of the train part: it, and up to max_length items before it.

    Args:
      interactions: histories.
      max_length: T.
    """
    known = split_end(interactions, "train")
    count = np.maximum(known - 1, 0)
    user = np.repeat(np.arange(interactions.n_users), count)
    target = 1 + np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    before = np.maximum(target - max_length, 0)
    first = interactions.offsets[user]
    return Windows(
        first + before, first + target + 1, first + target, np.zeros(len(user), np.int32)
    )


def view_windows(windows: Windows, archetype_before: np.ndarray) -> Windows:
    """Every window once for each archetype that its user went through in it.

    Loss is on the first target before which the user was that archetype and on all behind it, so
    whatever a target is trained in follows from what lies before it (design part 3.8). Those of a
    user who is another by then are asked as if the change had not been noticed yet.

    Args:
      windows: n windows, as cut.
      archetype_before: int[nnz], the user's archetype given the interactions before that one.

    Returns:
      The views, at least one per window and in the windows' order.
    """
    count = windows.end - windows.first_target
    window = np.repeat(np.arange(len(windows)), count)
    place = np.arange(len(window)) + (windows.first_target - np.cumsum(count) + count)[window]
    kinds = int(archetype_before.max()) + 1
    seen, first = np.unique(window * kinds + archetype_before[place], return_index=True)
    window, archetype = np.divmod(seen, kinds)
    return Windows(
        windows.start[window], windows.end[window], place[first], archetype.astype(np.int32)
    )


def plan_epoch(windows: Windows, size: int, config: PipelineConfig, epoch: int) -> EpochPlan:
    """Lays out one epoch: rows of a group share an archetype, groups of a batch a bucket.

    Views are drawn from all alike: were each window to give one, views would count less the more of
    them it has, which hangs on later items.

    What is left over in a bucket moves to the next longer one, so at most one group per archetype
    and one batch per epoch has to be filled up, with rows that bear no loss. The number of batches
    is the same every epoch: the extra ones are dropped, at random.

    Args:
      windows: views of windows.
      size: how many of them make an epoch.
      config: sizes and seed.
      epoch: from 0.
    """
    rng = np.random.default_rng((config.seed, epoch))
    widths = bucket_widths(config)
    bucket = np.searchsorted(widths, windows.end - windows.start - 1)
    order = rng.permutation(len(windows))[:size]
    per_batch = config.batch_size // config.group

    kinds = np.unique(windows.archetype)
    left_rows = {kind: np.zeros(0, np.int64) for kind in kinds}
    left_groups: list[tuple[np.ndarray, np.ndarray]] = []
    batches, losses, batch_widths = [], [], []
    for place, width in enumerate(widths):  # buckets x archetypes, never windows
        last = place == len(widths) - 1
        groups = left_groups
        for kind in kinds:
            fresh = order[(bucket[order] == place) & (windows.archetype[order] == kind)]
            rows = np.concatenate([left_rows[kind], fresh])
            full = len(rows) // config.group * config.group
            groups += _groups(rows[:full], config.group)
            left_rows[kind] = rows[full:]
            if last and len(left_rows[kind]):
                groups.append(_fill(left_rows[kind], config.group, rng))
        groups = [groups[k] for k in rng.permutation(len(groups))]
        missing = -len(groups) % per_batch
        if last and missing:
            again = rng.integers(len(groups), size=missing)
            groups += [(groups[k][0], np.zeros(config.group, bool)) for k in again]
        full = len(groups) // per_batch * per_batch
        left_groups = groups[full:]
        if full:
            batches.append(np.stack([rows for rows, _ in groups[:full]]))
            losses.append(np.stack([loss for _, loss in groups[:full]]))
            batch_widths += [width] * (full // per_batch)

    steps = -(-size // config.batch_size)
    kept = rng.permutation(len(batch_widths))[:steps]
    return EpochPlan(
        window=np.concatenate(batches).reshape(-1, config.batch_size)[kept],
        bears_loss=np.concatenate(losses).reshape(-1, config.batch_size)[kept],
        width=np.array(batch_widths, np.int64)[kept],
    )


def bucket_widths(config: PipelineConfig) -> np.ndarray:
    """int64[n], the input lengths in use, ascending, the last being max_length."""
    shorter = sorted({width for width in config.buckets if width < config.max_length})
    return np.array([*shorter, config.max_length], np.int64)


def _groups(rows: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(group, np.ones(size, bool)) for group in rows.reshape(-1, size)]


def _fill(rows: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    again = rng.choice(rows, size - len(rows))
    return np.concatenate([rows, again]), np.arange(size) < len(rows)


class TrainBatches:
    """The endless stream of training batches, in random access: batches[i] depends on (seed, i).

    A batch is a dict of `inputs` int32[B, Tb], `targets` int32[B, Tb] (0 = no loss), `archetype`
    int32[B] (equal within each group) and `example` uint32[B], the number of the row's view over
    all epochs; Tb is the batch's bucket, rows are right-padded with 0. If asked for, `belief`
    float16[B, Tb, M, K] is what was believed of the user before every target.
    """

    def __init__(
        self,
        interactions: Interactions,
        config: PipelineConfig,
        archetype_before: np.ndarray | None = None,
        belief_before: np.ndarray | None = None,
    ) -> None:
        """Cuts the windows; epochs are planned when first asked for.

        Args:
          interactions: histories.
          config: sizes and seed.
          archetype_before: int[nnz], aligned with interactions.items, or None.
          belief_before: float16[nnz, M, K], likewise.

        Raises:
          InputError: group does not divide batch_size, or no user has two items to train on.
        """
        if config.batch_size % config.group:
            raise InputError(
                f"train.group = {config.group} does not divide batch_size = {config.batch_size}"
            )
        for before in (archetype_before, belief_before):
            if before is not None and len(before) != len(interactions.items):
                raise ValueError("what is known before items must be aligned with them")
        check_trainable(interactions)
        self._items = interactions.items
        cut = slide_windows if config.sliding else cut_windows
        self._windows = cut(interactions, config.max_length)
        targets = self._windows.n_targets
        if archetype_before is not None:
            self._windows = view_windows(self._windows, archetype_before)
        # Of one epoch: as many targets as without archetypes, in as many views as that takes.
        self.n_windows = round(len(self._windows) * targets / self._windows.n_targets)
        self._belief_before = belief_before
        self._config = config
        self._plans: dict[int, EpochPlan] = {}
        self._lock = threading.Lock()

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every epoch."""
        return -(-self.n_windows // self._config.batch_size)

    @property
    def widths(self) -> tuple[int, ...]:
        """All Tb that can occur."""
        return tuple(int(width) for width in bucket_widths(self._config))

    def __len__(self) -> int:
        return ENDLESS

    def __repr__(self) -> str:  # grain puts this into the iterator's state
        return f"TrainBatches(windows={self.n_windows}, batch_size={self._config.batch_size})"

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch; the latest two are kept, prefetching may cross the border."""
        with self._lock:
            if epoch not in self._plans:
                while len(self._plans) > 1:
                    del self._plans[min(self._plans)]
                self._plans[epoch] = plan_epoch(self._windows, self.n_windows, self._config, epoch)
            return self._plans[epoch]

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, place = divmod(int(step), self.steps_per_epoch)
        plan = self.plan(epoch)
        rows, width = plan.window[place], int(plan.width[place])
        start, end = self._windows.start[rows], self._windows.end[rows]
        first = self._windows.first_target[rows]
        inputs, _ = gather_windows(self._items, start, end - 1, width)
        targets, _ = gather_windows(self._items, start + 1, end, width)
        target_place = np.minimum(start[:, None] + 1 + np.arange(width), end[:, None] - 1)
        bears = plan.bears_loss[place][:, None] & (target_place >= first[:, None])
        batch = {
            "inputs": inputs,
            "targets": np.where(bears, targets, 0).astype(np.int32),
            "archetype": self._windows.archetype[rows],
            "example": ((epoch * len(self._windows) + rows) % 2**32).astype(np.uint32),
        }
        if self._belief_before is not None:
            batch["belief"] = self._belief_before[target_place]
        return batch


def iterator(batches: TrainBatches, start: int = 0, prefetch: int = 8) -> grain.DatasetIterator:
    """An iterator over batches[start], batches[start + 1], … that a thread keeps filled.

    Args:
      batches: the source.
      start: the first step.
      prefetch: batches made ahead.

    Returns:
      A grain iterator; get_state() and set_state(state) resume it exactly.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
    stream = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
    if start:
        grain.experimental.set_next_index(stream, start)
    return stream


def count_targets(batch: Mapping[str, np.ndarray]) -> int:
    """How many positions of a batch bear loss."""
    return int(np.count_nonzero(batch["targets"]))
