"""What it takes to keep users' semantic IDs up to date: step by step, or all over again.

Timed, for a batch of users with full histories:
* an update with no drift, what nearly every interaction costs;
* an update in which every user drifts, so that all read sides move step by step;
* every item of the read side encoded anew, from its features, under the user's new weights;
* every item of the catalogue encoded so, which is what IDs of one's own without archetypes take.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from semid_jax import disk, provenance
from semid_jax.benchmarks.timing import time_in_turn
from semid_jax.data.sequences import popularity, split_end
from semid_jax.data.source import RawDataset
from semid_jax.models.encoders import encode
from semid_jax.models.fusion import fuse
from semid_jax.models.pmat import Pmat, find_owners
from semid_jax.quantize import codebook
from semid_jax.recommenders.common import section
from semid_jax.recommenders.hdnag import check_tokenizer, tokenize_stage
from semid_jax.report.readme import UPDATE_COLUMNS
from semid_jax.report.tables import text_table
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.streaming import Streamer, StreamState, begin, make_streamer, update
from semid_jax.turns import cached_turns
from semid_jax.types import InputError, Interactions, ItemFeatures

DRIFT = "update, all drift"
CHUNK = 8192  # items encoded at once
Calls = dict[str, Callable[[], Any]]  # what is timed, by name


@dataclasses.dataclass(frozen=True)
class UpdateSpeedConfig:
    """The benchmark.

    Attributes:
      batches: users per call.
      seconds: of timed calls, for each line; lines of a batch take turns.
      catalogue_users: users of a batch, at most, for whom the whole catalogue is encoded.
    """

    batches: tuple[int, ...] = (1, 256)
    seconds: float = 5.0
    catalogue_users: int = 1


def check_settings(config: ConfigDict) -> None:
    """Refuses what cannot be timed.

    Raises:
      InputError: names the field and the remedy.
    """
    check_tokenizer(config)
    if config.tokenizer.context:
        raise InputError("tokenizer.context: items are encoded from features here; leave it at 0")


def run(config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures) -> None:
    """Times updates and full encodings, prints a table and writes results/update_speed.json.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.

    Raises:
      InputError: no user has a history to drift from.
    """
    settings: UpdateSpeedConfig = section(config, "benchmark", UpdateSpeedConfig)
    tokenizer = tokenize_stage(config, workdir, raw, features)
    width, rows = config.train.max_length, []
    owner = jnp.asarray(find_owners(popularity(raw.interactions)))
    for batch in settings.batches:
        streamer = make_streamer(tokenizer)
        state, items = full_histories(streamer, raw.interactions, batch, width)
        calls = updates(streamer, state, items)
        calls |= encodings(tokenizer, streamer, features, owner, state, settings.catalogue_users)
        timings = time_in_turn(list(calls.values()), settings.seconds)
        for work, timing in zip(calls, timings, strict=True):
            about = {"work": work, "n_items": raw.interactions.n_items, "batch": batch}
            rows.append({**about, **dataclasses.asdict(timing)})
    base = {row["batch"]: row["p50_ms"] for row in rows if row["work"] == DRIFT}
    for row in rows:
        row["ratio"] = row["p50_ms"] / base[row["batch"]]
    print(f"\nUpdates and encodings of read sides of {width} items (ratio to '{DRIFT}')")
    print(text_table(rows, UPDATE_COLUMNS))
    made = {
        "machine": provenance.machine(),
        "revision": provenance.revision(),
        "versions": provenance.versions(),
        "rows": rows,
    }
    path = workdir / "results" / "update_speed.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_json(path, made)
    print(path)


def full_histories(
    streamer: Streamer, interactions: Interactions, batch: int, width: int
) -> tuple[StreamState, jax.Array]:
    """States of the users with the longest histories, and the item that comes next.

    No drift is noticed on the way: after one a user cannot be judged for some items.

    Args:
      streamer: of the run.
      interactions: histories; users repeat where there are fewer than the batch takes.
      batch: B.
      width: T.

    Raises:
      InputError: the longest history is too short to be judged.
    """
    end = split_end(interactions, "test")
    users = np.resize(np.argsort(-end, kind="stable")[:batch], batch)
    longest = int(end[users].max())
    if longest < 2 * streamer.window:
        raise InputError(
            f"data: the longest history has {longest} items, a drift is judged from "
            f"{2 * streamer.window} on; name another data set, or a smaller tokenizer.window"
        )
    calm = dataclasses.replace(streamer, threshold=jnp.float32(jnp.inf))
    state = begin(calm, batch, width)
    steps = range(-min(longest, width), 0)
    for step in tqdm(steps, desc="replay", unit="step", mininterval=2.0):
        state, _ = update(calm, state, _at(interactions, users, end[users] + step))
    return state, _at(interactions, users, end[users])


def _at(interactions: Interactions, users: np.ndarray, position: np.ndarray) -> jax.Array:
    """int32[B], the items at positions of users' histories, 0 before the first."""
    place = interactions.offsets[users] + np.maximum(position, 0)
    return jnp.asarray(np.where(position >= 0, interactions.items[place], 0), jnp.int32)


def updates(streamer: Streamer, state: StreamState, items: jax.Array) -> Calls:
    """One interaction of every user, without drifts and with nothing else.

    Args:
      streamer: of the run.
      state: of B users.
      items: int32[B], what they choose next.

    Raises:
      InputError: a user cannot be judged.
    """
    calls: Calls = {}
    for work, threshold in (("update, no drift", jnp.inf), (DRIFT, -1e30)):
        alert = dataclasses.replace(streamer, threshold=jnp.float32(threshold))
        _, events = update(alert, state, items)
        if bool(jnp.all(events.fired)) != (work == DRIFT):
            raise InputError("data: a history is too short to be judged; name fewer batches")
        calls[work] = functools.partial(update, alert, state, items)
    return calls


def encodings(
    tokenizer: Tokenizer,
    streamer: Streamer,
    features: ItemFeatures,
    owner: jax.Array,
    state: StreamState,
    catalogue_users: int,
) -> Calls:
    """Encoding from features: every user's read side, and the catalogue.

    Args:
      tokenizer: of the run.
      streamer: made of it.
      features: normalised features.
      owner: int32[N + 1], see `find_owners`.
      state: of B users.
      catalogue_users: of how many users the catalogue, at most.
    """
    archetypes, module = streamer.archetypes, tokenizer.module
    alpha, gate = archetypes.alpha[state.archetype], archetypes.gate[state.archetype]
    catalogue = jax.device_put((features.x, features.present))
    known = tokenizer.frozen.params, tokenizer.book, streamer.perceiver.mask, owner

    def codes(known: Any, catalogue: Any, items: jax.Array, *seen: jax.Array) -> Any:
        params, book, mask, owner = known
        x, present = jax.tree.map(lambda a: a[items], catalogue)
        e = encode(x, present, module.config.width)
        h = module.apply(params, e, owner[items], method=Pmat.refine)
        return codebook.encode(book, fuse(h, mask[items], *seen))

    batch, width = state.history.shape
    modalities, D = alpha.shape[1], gate.shape[1]
    each = 4 * width * D * (4 * modalities + 4)  # x, e, h and what is between them, z, its parts

    def of_some(known: Any, catalogue: Any, users: tuple[jax.Array, ...]) -> Any:
        items, *seen = users
        wide = (jnp.repeat(a, width, axis=0) for a in seen)
        made = codes(known, catalogue, items.reshape(-1), *wide)
        return jax.tree.map(lambda a: a.reshape(len(items), width, *a.shape[1:]), made)

    @jax.jit
    def of_read_sides(known: Any, catalogue: Any, users: tuple[jax.Array, ...]) -> Any:
        return cached_turns(functools.partial(of_some, known, catalogue), users, each)

    read_sides = functools.partial(of_read_sides, known, catalogue, (state.history, alpha, gate))

    rows = len(streamer.perceiver.mask)
    size = min(CHUNK, rows)
    every = jnp.arange(-(-rows // size) * size).reshape(-1, size) % rows

    @jax.jit
    def of_all(known: Any, catalogue: Any, *seen: jax.Array) -> Any:
        return jax.lax.map(lambda items: codes(known, catalogue, items, *seen), every)

    users = min(batch, catalogue_users)

    def of_users() -> Any:
        return [of_all(known, catalogue, alpha[u : u + 1], gate[u : u + 1]) for u in range(users)]

    return {"read sides encoded": read_sides, f"catalogue encoded, {users} of the users": of_users}
