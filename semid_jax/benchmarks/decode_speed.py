"""All decoders on one axis: how long a ranked list takes, and what it is worth.

One trained model, one process, one machine; every decoder is warm when it is timed. Accuracy is
told beside each time, on held-out users of the test split, under S1, or S2 where that ranks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from semid_jax import disk, provenance
from semid_jax.benchmarks.autoregressive import BeamSearch, beam_programs, train_beam_searches
from semid_jax.benchmarks.decode_rows import (
    accuracy,
    decoder_programs,
    end_to_end,
    finish,
    trace_sizes,
)
from semid_jax.benchmarks.decoders import METHODS, Decoder, check_methods, make_decoders
from semid_jax.benchmarks.machine import Rates, measure
from semid_jax.benchmarks.memory import measure_peak
from semid_jax.benchmarks.programs import time_programs
from semid_jax.benchmarks.reranked import reranked, reranked_programs, worth_again
from semid_jax.benchmarks.served import Served, build, serve
from semid_jax.benchmarks.streamed import streamed_program
from semid_jax.data.source import RawDataset
from semid_jax.decode.config import DecodeConfig
from semid_jax.eval.coarse import coarse_metrics
from semid_jax.eval.phases import trace_decoding
from semid_jax.eval.searching import run_search
from semid_jax.profiling import ProfileConfig
from semid_jax.recommenders import hdnag
from semid_jax.recommenders.common import release, section
from semid_jax.recommenders.hdnag import PHASE_COLUMNS
from semid_jax.report.figures import draw_speed
from semid_jax.report.readme import SPEED_COLUMNS
from semid_jax.report.tables import Column, shown_columns, text_table
from semid_jax.types import InputError, ItemFeatures


@dataclasses.dataclass(frozen=True)
class DecodeSpeedConfig:
    """The benchmark.

    Attributes:
      methods: decoders of the parallel model; `exact` and `inverted` are always among them.
      batches: users per call.
      users: of the test split, for recall and accuracy; 0 for all.
      recall: of the exact k best on validation: `inverted` probes the fewest cells and `leaves`
        reads the fewest leaves that surely hold so many, unless decode.probes, decode.leaves say
        how many.
      seconds: of timed calls, for each number.
      lengths: codes of an item for the autoregressive rows; 0 stands for the model's own length, ()
        leaves them out.
      epochs: that each of those is trained; times do not depend on it, accuracy and the beam do.
      beams: the best on validation is taken.
    """

    methods: tuple[str, ...] = METHODS
    batches: tuple[int, ...] = (1, 256)
    users: int = 4096
    recall: float = 0.99
    seconds: float = 3.0
    lengths: tuple[int, ...] = (4, 0)
    epochs: tuple[int, ...] = (4, 1)
    beams: tuple[int, ...] = (10, 20, 50)


def check_settings(config: ConfigDict) -> None:
    """Refuses what cannot be timed or trained.

    Raises:
      InputError: an unknown method, a length without epochs or beams, or a setting of the model.
    """
    check_methods(config.benchmark.methods)
    if len(config.benchmark.epochs) < len(config.benchmark.lengths):
        raise InputError("benchmark.epochs: name one number for each of benchmark.lengths")
    if config.benchmark.lengths and not config.benchmark.beams:
        raise InputError("benchmark.beams: name one or more, or set benchmark.lengths=()")
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
    decode: DecodeConfig = section(config, "decode", DecodeConfig)
    methods = tuple(dict.fromkeys(("exact", *settings.methods, "inverted")))
    served = serve(config, workdir, raw, features, settings.users, settings.recall)
    built, held = measure_peak(lambda: build(served, config.quantize.balance))
    more = "" if held is None else f", {held:,.0f} MiB more at the peak"
    print(f"decode_speed: from z to cells, codes and lists in {built:.1f} s{more}")
    beams = train_beam_searches(config, workdir, raw, features, served.side.users)
    release()
    rates = measure(min(settings.seconds, 1.0))
    decoders = make_decoders(methods, served, decode, workdir / "index" / "scann")
    found = {
        decoder.name: run_search(served.queries, decoder.search, decoder.name)
        for decoder in decoders
        if decoder.most is None
    }
    worth = {name: accuracy(lists, found["exact"], served.side) for name, lists in found.items()}
    asked = {batch: served.some_queries(batch, max(16 // batch, 2)) for batch in settings.batches}
    rows, probes = time_rows(served, decoders, beams, asked, worth, rates, decode, settings.seconds)
    for row in rows:
        if row["decoder"] == "inverted":
            row |= {"build_s": built, "build_mib": held}
    finish(rows, raw.interactions.n_items)
    curve = trace_sizes(decoders, served, found["exact"], asked, settings.seconds / 6)
    of_step = dataclasses.replace(decode, probes=probes)
    phases = trace_phases(served, settings, of_step, workdir / "profile")
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
    show(workdir, made)


def time_rows(
    served: Served,
    decoders: Sequence[Decoder],
    beams: Sequence[BeamSearch],
    asked: Mapping[int, Sequence[Any]],
    worth: Mapping[str, dict[str, float]],
    rates: Rates,
    decode: DecodeConfig,
    seconds: float,
) -> tuple[list[dict[str, Any]], int]:
    """Times searches, whole answers, a server's steps and beam searches, in turns.

    Args:
      served: the model and its users.
      decoders: to be timed.
      beams: of GPT2.
      asked: users of a call to some queries of as many.
      worth: how accurate each decoder's lists are, by its name.
      rates: of the machine.
      decode: k, and the items that S2 ranks again.
      seconds: of timed calls, for each.

    Returns:
      A row each, and P of whole answers: chosen under S2 where the model has it.
    """
    kept, probes = decoders, served.probes
    again: Mapping[str, dict[str, float]] = {}
    if served.dense is not None:
        kept = reranked(served, served.dense, decoders, decode)
        again = worth_again(served, served.dense, kept, decode.k)
        probes = next(decoder.size for decoder in kept if decoder.reads == "probes")
    rows: list[dict[str, Any]] = []
    for batch, queries in asked.items():
        programs = decoder_programs(decoders, queries, worth, rates)
        programs += end_to_end(served, decoders, worth, batch, rates)
        if served.dense is not None:
            of_s2 = served, served.dense, kept, again, batch
            programs += reranked_programs(*of_s2, decode, rates)
        sized = (decoder for decoder in kept if decoder.reads)
        programs += [streamed_program(served, decoder, decode, batch) for decoder in sized]
        for search in beams:
            programs += beam_programs(search, batch, rates)
        rows += [{"batch": batch, **row} for row in time_programs(programs, seconds)]
    return rows, probes


def trace_phases(
    served: Served, settings: DecodeSpeedConfig, decode: DecodeConfig, directory: Path
) -> list[dict[str, Any]]:
    """The phases of a decode step by `inverted`, see `trace_decoding`, for every batch size."""
    asked = served.model, served.index, served.side, served.dense, decode
    made = []
    for batch in settings.batches:
        table = trace_decoding(*asked, ProfileConfig(batch=batch), directory / f"{batch}_users")
        made += [{"batch": batch, **row} for row in table]
    return made


def write(workdir: Path, config: ConfigDict, measured: dict[str, Any]) -> None:
    """The numbers as JSON and the figure."""
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
    draw_speed(measured["rows"], measured["curve"], folder / "decode_speed.png")


def show(workdir: Path, measured: dict[str, Any]) -> None:
    """The tables in the terminal, and where the rest lies."""
    rows, head = measured["rows"], measured["head"]
    print("\nDecoders, warm, one process; ratios of medians")
    print(text_table(rows, shown_columns(SPEED_COLUMNS, rows)))
    print("\nA step of the trunk and inverted, phase by phase, each waited for")
    print(text_table(measured["phases"], [Column("batch"), *PHASE_COLUMNS]))
    print(
        f"\ncoarse head: entropy {head['coarse_entropy']:.2f} nats, the target is in the probed "
        f"cells for {head['coarse_recall']:.1%} of the users"
    )
    print(workdir / "results" / "decode_speed.json")
    print(workdir / "results" / "decode_speed.png")
