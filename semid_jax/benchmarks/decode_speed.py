"""All decoders on one axis: how long a ranked list takes, and what it is worth.

One trained model, one process, one machine; every decoder is warm when it is timed. Accuracy is
told beside each time, on held-out users of the test split, under S1.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from semid_jax import disk, provenance
from semid_jax.benchmarks.autoregressive import autoregressive_rows, gpt2_config
from semid_jax.benchmarks.decoders import METHODS, Decoder, check_methods, inverted, make_decoders
from semid_jax.benchmarks.machine import Rates, measure, trunk_work
from semid_jax.benchmarks.memory import measure_peak
from semid_jax.benchmarks.timing import time_calls, time_compiled, times
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.decode.index import Index, build_index
from semid_jax.decode.inverted import retrieve_inverted
from semid_jax.decode.retrieved import Retrieved
from semid_jax.decode.score import Tables
from semid_jax.eval.coarse import coarse_metrics
from semid_jax.eval.model import Model, ReadSide, hdnag_queries, user_query
from semid_jax.eval.phases import trace_decoding
from semid_jax.eval.probing import probes_for_recall
from semid_jax.eval.ranking import target_ranks
from semid_jax.eval.read_sides import read_side
from semid_jax.eval.searching import Queries, overlap, run_search, some_vectors
from semid_jax.eval.users import Lists, mean_metrics
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.profiling import ProfileConfig
from semid_jax.quantize.fit import encode_items
from semid_jax.recommenders import hdnag
from semid_jax.recommenders.common import release, section
from semid_jax.recommenders.hdnag import (
    PHASE_COLUMNS,
    index_stage,
    tokenize_stage,
    train_stage,
)
from semid_jax.report.figures import draw_speed
from semid_jax.report.readme import SPEED_COLUMNS
from semid_jax.report.tables import Column, shown_columns, text_table
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.types import InputError, ItemFeatures

SAMPLE_SEED = 0  # of the users: the same in every run
CALL, TRUNK, WHOLE = "call alone", "trunk", "trunk + inverted"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of P: the curve of `inverted`


@dataclasses.dataclass(frozen=True)
class DecodeSpeedConfig:
    """The benchmark.

    Attributes:
      methods: decoders of the parallel model; `exact` and `inverted` are always among them.
      batches: users per call.
      users: of the test split, for recall and accuracy; 0 for all.
      recall: of the exact k best that `inverted` has on validation: it probes the fewest cells
        that surely do, unless decode.probes says how many.
      share: of the items that `leaves` scores, at most.
      seconds: of timed calls, for each number.
      lengths: codes of an item for the autoregressive rows; 0 stands for the model's own length, ()
        leaves them out.
      epochs: that each of those is trained; times do not depend on it, accuracy and the beam do.
      beams: the best on validation is taken.
    """

    methods: tuple[str, ...] = METHODS
    batches: tuple[int, ...] = (1, 256)
    users: int = 4096
    recall: float = 0.95
    share: float = 0.01
    seconds: float = 3.0
    lengths: tuple[int, ...] = (4, 0)
    epochs: tuple[int, ...] = (4, 1)
    beams: tuple[int, ...] = (10, 20, 50)


@dataclasses.dataclass(frozen=True)
class Served:
    """A trained model and the users it serves.

    Attributes:
      tokenizer: of its semantic IDs.
      model: best on validation.
      index: with the model's tables.
      side: held-out users.
      queries: of all of them.
      vectors: float32[S, F], of users on validation: what a decoder may be fitted to.
      probes: P, chosen on validation.
    """

    tokenizer: Tokenizer
    model: Model
    index: Index
    side: ReadSide
    queries: Queries
    vectors: np.ndarray
    probes: int

    def some_queries(self, batch: int, count: int) -> list[Any]:
        """A few batches of users from all over."""
        rows = np.resize(
            np.linspace(0, len(self.side) - 1, batch * count, dtype=int), batch * count
        )
        part = self.side.take(np.sort(rows))
        made = hdnag_queries(self.model, self.index, part, batch, shows_bar=False)
        return [query for query, _, _ in made]


def check_settings(config: ConfigDict) -> None:
    """Refuses what cannot be timed or trained.

    Raises:
      InputError: an unknown method, a length without epochs, or a setting of the model.
    """
    check_methods(config.benchmark.methods)
    if len(config.benchmark.epochs) < len(config.benchmark.lengths):
        raise InputError("benchmark.epochs: name one number for each of benchmark.lengths")
    hdnag.check_settings(config)


def run(config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures) -> None:
    """Trains, times, prints a table, writes results/decode_speed.json and its figure.

    Args:
      config: resolved.
      workdir: where everything goes.
      raw: data set.
      features: normalised features.
    """
    settings: DecodeSpeedConfig = section(config, "benchmark", DecodeSpeedConfig)
    methods = tuple(dict.fromkeys(("exact", *settings.methods, "inverted")))
    served = serve(config, workdir, raw, features, settings)
    rates = measure(min(settings.seconds, 1.0))
    k = config.decode.k
    asked_for = methods, served.index, served.probes, k, served.vectors, settings.share
    decoders = make_decoders(*asked_for, workdir / "index" / "scann")
    built, held = measure_peak(lambda: build(served, config.quantize.balance))
    more = "" if held is None else f", {held:,.0f} MiB more at the peak"
    print(f"decode_speed: from z to cells, codes and lists in {built:.1f} s{more}")
    found = {
        decoder.name: run_search(served.queries, decoder.search, decoder.name)
        for decoder in decoders
        if decoder.most is None
    }
    worth = {name: accuracy(lists, found["exact"], served.side) for name, lists in found.items()}
    rows: list[dict[str, Any]] = []
    asked = {batch: served.some_queries(batch, max(16 // batch, 2)) for batch in settings.batches}
    for batch, queries in asked.items():
        timed = time_decoders(decoders, queries, worth, rates, settings.seconds)
        timed += end_to_end(served, batch, k, rates, settings)
        rows += [{"batch": batch, **row} for row in timed]
    for row in rows:
        if row["decoder"] == "inverted":
            row |= {"build_s": built, "build_mib": held}
    curve = trace_probes(served, found["exact"], asked, k)
    phases = trace_phases(served, settings, k, workdir / "profile")
    own = config.quantize.digits + 1
    for length, epochs in zip(settings.lengths, settings.epochs, strict=False):
        release()
        gpt2 = gpt2_config(config, length or own, epochs)
        rows += autoregressive_rows(gpt2, workdir, raw, features, served.side.users, rates)
    finish(rows, raw.interactions.n_items)
    weight = served.model.params["params"]["coarse_weight"]
    of_head = served.side, served.tokenizer.coarse, weight, served.probes
    made = {
        "rates": dataclasses.asdict(rates),
        "head": coarse_metrics(served.queries, *of_head),
        "rows": rows,
        "curve": curve,
        "phases": phases,
    }
    write(workdir, config, made)


def serve(
    config: ConfigDict,
    workdir: Path,
    raw: RawDataset,
    features: ItemFeatures,
    settings: DecodeSpeedConfig,
) -> Served:
    """The model, by HDNAG's stages, and some held-out users."""
    tokenizer = tokenize_stage(config, workdir, raw, features)
    release()
    sizes = section(config, "model", GeneratorConfig)
    model, _ = train_stage(config, workdir, raw, tokenizer, sizes)
    release()
    index = index_stage(config, workdir, raw, tokenizer, model)
    chosen = None
    if 0 < settings.users < raw.interactions.n_users:
        rng = np.random.default_rng(SAMPLE_SEED)
        chosen = np.sort(rng.choice(raw.interactions.n_users, settings.users, replace=False))

    def asked(split: str) -> tuple[ReadSide, Queries]:
        width = config.train.max_length
        side, _, _ = read_side(tokenizer, raw.interactions, split, width, chosen)
        return side, hdnag_queries(model, index, side)

    side, queries = asked("validation")
    probes = config.decode.probes
    if not probes:
        of_lists = side, settings.recall, config.decode.k
        probes, missed = probes_for_recall(queries, index, *of_lists)
        found = f"{100 - 100 * missed[probes].mean:.1f} % of the exact lists on validation"
        print(f"decode_speed: {probes} of {index.n_cells} cells hold {found}")
    vectors = some_vectors(queries)
    return Served(tokenizer, model, index, *asked("test"), vectors, probes)


def build(served: Served, balance: float) -> Index:
    """From z to cells and codes of all items and their lists; the codebook is there."""
    tokenizer, tables = served.tokenizer, served.index.tables
    coarse, fine = encode_items(tokenizer.book, tokenizer.points, balance)
    own = Tables(tables.coarse, tables.fine[: fine.shape[-1]])  # less what archetypes share
    return build_index(coarse, fine, np.zeros(coarse.shape, np.float32), own)


def accuracy(found: Lists, exact: Lists, side: ReadSide) -> dict[str, float]:
    """What lists are worth beside those of the exact search."""
    ndcg, best = (
        mean_metrics(target_ranks(lists.items, side.targets))["ndcg@10"] for lists in (found, exact)
    )
    return {
        "recall@10": overlap(found.items[:, :10], exact.items[:, :10]),
        "ndcg@10": ndcg,
        "search_loss": 1.0 - ndcg / best if best else 0.0,
        "items_scored": float(found.scored.mean()),
    }


def spot_check(decoder: Decoder, exact: Decoder, queries: Sequence[Any]) -> dict[str, float]:
    """Recall on a few queries only."""
    found = [jax.device_get(decoder.search(query)) for query in queries]
    best = [np.asarray(exact.search(query).items) for query in queries]
    items = np.concatenate([part.items for part in found])
    return {
        "recall@10": overlap(items[:, :10], np.concatenate(best)[:, :10]),
        "items_scored": float(np.mean([part.scored for part in found])),
    }


def time_decoders(
    decoders: Sequence[Decoder],
    queries: Sequence[Any],
    worth: Mapping[str, dict[str, float]],
    rates: Rates,
    seconds: float,
) -> list[dict[str, Any]]:
    """Times those that take so many users.

    Args:
      decoders: the exact one first.
      queries: batches of users.
      worth: name -> accuracy; of a decoder that is not there a few queries tell.
      rates: of the machine.
      seconds: how long to time each.
    """
    rows = []
    for decoder in decoders:
        if decoder.most is not None and decoder.most < len(queries[0].archetype):
            continue
        own = worth.get(decoder.name) or spot_check(decoder, decoders[0], queries)
        row = time_decoder(decoder, queries, own, rates, seconds)
        rows.append({**row, "build_s": decoder.build_s, **own})
    return rows


def time_decoder(
    decoder: Decoder,
    queries: Sequence[Any],
    worth: dict[str, float],
    rates: Rates,
    seconds: float,
) -> dict[str, Any]:
    """Times a decoder on queries that are already made.

    Args:
      decoder: which.
      queries: batches of users, taken in turns.
      worth: of `accuracy`.
      rates: of the machine.
      seconds: how long to time.
    """
    users = len(queries[0].archetype)
    work = decoder.work(users, worth["items_scored"])
    row: dict[str, Any] = {"decoder": decoder.name, "bytes_touched": work.bytes}
    if decoder.compiles:
        timing, made = time_compiled(decoder.run, decoder.arrays, queries, seconds)
        row |= made
    else:
        turns = itertools.cycle(queries)
        timing = time_calls(lambda: decoder.run(*decoder.arrays, next(turns)), seconds)
    return row | times(timing, rates.floor_ms(work))


def end_to_end(
    served: Served, batch: int, k: int, rates: Rates, settings: DecodeSpeedConfig
) -> list[dict[str, Any]]:
    """From a history to a ranked list in one program; its model alone; a call that does nothing."""
    rows = np.linspace(0, len(served.side) - 1, batch, dtype=int)
    part = served.side.take(np.resize(rows, batch))
    fields = part.coarse, part.fine, part.history, part.archetype, part.belief
    of_users = tuple(jnp.asarray(a) for a in fields)
    arrays = served.model, served.index

    def nothing(model: Model, index: Index, users: Any) -> jax.Array:
        del model, index
        archetype: jax.Array = users[3]
        return archetype

    def ask(model: Model, index: Index, users: Any) -> Any:
        return user_query(model, index.tables, *users)

    def answer(model: Model, index: Index, users: Any) -> Retrieved:
        return retrieve_inverted(index, ask(model, index, users), served.probes, k)

    sizes = served.model.generator.config
    positions = batch * part.history.shape[1]
    work = trunk_work(positions, sizes.width, sizes.layers)
    made = []
    for name, program in ((CALL, nothing), (TRUNK, ask), (WHOLE, answer)):
        timing, compiled = time_compiled(program, arrays, [of_users], settings.seconds)
        floor = None if name == CALL else rates.floor_ms(work)
        made.append({"decoder": name, **compiled, **times(timing, floor)})
    return made


def trace_probes(
    served: Served, exact: Lists, asked: Mapping[int, Sequence[Any]], k: int
) -> list[dict[str, Any]]:
    """Recall against time of `inverted` as P grows.

    Args:
      served: the model and all users.
      exact: their exact lists.
      asked: users of a call to some queries of as many.
      k: items returned.
    """
    cells, points = served.index.n_cells, []
    for probes in sorted({min(max(round(f * served.probes), 1), cells) for f in FACTORS}):
        decoder = inverted(served.index, probes, k)
        lists = run_search(served.queries, decoder.search, f"{probes} cells")
        worth = accuracy(lists, exact, served.side)
        for batch, queries in asked.items():
            timing, _ = time_compiled(decoder.run, decoder.arrays, queries, 0.5)
            points.append({"batch": batch, "probes": probes, "p50_ms": timing.p50_ms, **worth})
    return points


def trace_phases(
    served: Served, settings: DecodeSpeedConfig, k: int, directory: Path
) -> list[dict[str, Any]]:
    """The phases of a decode step by `inverted`, see `trace_decoding`, for every batch size."""
    decode = DecodeConfig(probes=served.probes, k=k)
    made = []
    for batch in settings.batches:
        asked = served.model, served.index, served.side, decode, ProfileConfig(batch=batch)
        table = trace_decoding(*asked, directory / f"{batch}_users")
        made += [{"batch": batch, **row} for row in table]
    return made


def finish(rows: list[dict[str, Any]], n_items: int) -> None:
    """Adds what compares a row with others of its batch.

    "ratio": how often `exact` takes its time. "slower", of what goes from histories to lists: how
    often it takes the time of the trunk and `inverted`.
    """
    exact, whole = (
        {row["batch"]: row["p50_ms"] for row in rows if row["decoder"] == name}
        for name in ("exact", WHOLE)
    )
    for row in rows:
        row["n_items"] = n_items
        if row["decoder"] == WHOLE or row["decoder"].startswith("ar_"):
            row["slower"] = row["p50_ms"] / whole[row["batch"]]
        elif row["decoder"] not in (CALL, TRUNK):
            row["ratio"] = exact[row["batch"]] / row["p50_ms"]


def write(workdir: Path, config: ConfigDict, measured: dict[str, Any]) -> None:
    """The tables in the terminal, the numbers as JSON, the figure."""
    rows, head = measured["rows"], measured["head"]
    print("\nDecoders, warm, one process; ratios of medians")
    print(text_table(rows, shown_columns(SPEED_COLUMNS, rows)))
    print("\nA step of the trunk and inverted, phase by phase, each waited for")
    print(text_table(measured["phases"], [Column("batch"), *PHASE_COLUMNS]))
    print(
        f"\ncoarse head: entropy {head['coarse_entropy']:.2f} nats, the target is in the probed "
        f"cells for {head['coarse_recall']:.1%} of the users"
    )
    made = {
        "machine": provenance.machine(),
        "revision": provenance.revision(),
        "versions": provenance.versions(),
        "seed": config.seed,
        "data": config.data.to_dict(),
        **measured,
    }
    folder = workdir / "results"
    folder.mkdir(parents=True, exist_ok=True)
    disk.write_json(folder / "decode_speed.json", made)
    print(folder / "decode_speed.json")
    print(draw_speed(rows, measured["curve"], folder / "decode_speed.png"))
