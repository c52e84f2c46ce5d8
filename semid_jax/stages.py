"""The stages of a run, in the order of the data; a stage whose artefact matches is skipped."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from semid_jax import artifacts, disk, provenance
from semid_jax.benchmarks import decode_speed, update_speed
from semid_jax.data import builders
from semid_jax.data.config import CATEGORISED, DataConfig, check_name, read, source_hash
from semid_jax.data.expansion import Expansion, draw, expanded, expanded_modalities
from semid_jax.data.sequences import check_trainable, train_items
from semid_jax.data.source import RawDataset, describe
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.eval import baselines
from semid_jax.eval.ranking import ranking_metrics, target_ranks
from semid_jax.features.behaviour import with_behaviour
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform, read_features
from semid_jax.models.rounding import product_dtype
from semid_jax.parallel import Parallel
from semid_jax.presets import SHARED
from semid_jax.recommenders import autoregressive, dense, hdnag, rpg
from semid_jax.recommenders.common import section, since
from semid_jax.report.config import ReportConfig
from semid_jax.report.metrics import flatten
from semid_jax.report.run import report
from semid_jax.types import InputError, ItemFeatures

RECOMMENDERS = {
    "hdnag": hdnag.run,
    "rpg": rpg.run,
    **dict.fromkeys(dense.MODELS, dense.run),
    **dict.fromkeys(autoregressive.MODELS, autoregressive.run),
}
CHECKS = {
    "hdnag": hdnag.check_settings,
    "rpg": rpg.check_settings,
    **dict.fromkeys(dense.MODELS, dense.check_settings),
    **dict.fromkeys(autoregressive.MODELS, autoregressive.check_settings),
    "decode_speed": decode_speed.check_settings,
    "update_speed": update_speed.check_settings,
}
BENCHMARKS = {"decode_speed": decode_speed.run, "update_speed": update_speed.run}
# May differ between two runs in one workdir.
FREE_SECTIONS = ("profile", "report", "validate_only")


def run(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Runs all stages, or a benchmark.

    Args:
      config: resolved.
      workdir: where everything goes.
      argv: the command's arguments, for the record.

    Raises:
      InputError: what cannot be is refused first, and leaves no trace in `workdir`.
    """
    check(config)
    if config.recommender != "update_speed":  # it trains no generator
        Parallel(config.train.parallel).check_batch(config.train.batch_size, config.train.group)
    settle(config)
    claim(config, workdir, argv)
    raw = data_stage(config, workdir)
    features = features_stage(config, workdir, raw)
    if config.recommender in BENCHMARKS:
        BENCHMARKS[config.recommender](config, workdir, raw, features)
        return
    made = RECOMMENDERS[config.recommender](config, workdir, raw, features)
    if made is None:
        print("validate_only: the test split was not looked at; without the flag the run goes on")
        return
    beside = baselines_stage(config, workdir, raw, features)
    seconds = {
        "data": artifacts.read_extra(workdir / "data")["seconds"],
        "features": artifacts.read_extra(workdir / "features")["seconds"],
        **made.seconds,
        "baselines": artifacts.read_extra(workdir / "baselines")["seconds"],
    }
    metrics = {
        "run.model": config.recommender,
        "run.seed": config.seed,
        "run.parameters": sum(p.size for p in jax.tree.leaves(made.params)),
        "run.steps": made.progress.step,
        "run.best_step": made.progress.best_step,
        "run.seconds": sum(seconds.values()),
        **{f"run.stage_seconds.{name}": value for name, value in seconds.items()},
    }
    side, shown = made.evaluation.side, made.evaluation.lists.items
    own = ranking_metrics(target_ranks(shown, side.targets))["ndcg@10"]
    metrics |= baselines.compare(beside, own, side.users)
    settings = section(config, "report", ReportConfig)
    report(settings, workdir, raw, made.tokenizer, made.evaluation, metrics)


def check(config: ConfigDict) -> None:
    """Refuses what no run can be made of, before anything is.

    Raises:
      InputError: names the key and the remedy.
    """
    if config.recommender not in CHECKS:
        raise InputError(
            f"recommender = {config.recommender!r} is unknown; known are {', '.join(CHECKS)}"
        )
    if config.seed < 0:
        raise InputError(f"seed={config.seed}: give 0 or more")
    check_name(config.data.name)
    for name, kind in SHARED.items():
        section(config, name, kind)
    CHECKS[config.recommender](config)


def settle(config: ConfigDict) -> None:
    """Puts what "auto" means on this machine in its place: records say it, and runs go on so.

    Raises:
      InputError: an unknown value.
    """
    if config.data.name != CATEGORISED:  # of a preset whose data set was exchanged
        config.data.category = ""
    loss = config.get("loss", {})
    if "products" in loss:
        loss.products = product_dtype(loss.products).name


def claim(config: ConfigDict, workdir: Path, argv: list[str]) -> None:
    """Writes config.json, or refuses a workdir that another configuration has made.

    What made the workdir (versions, revision, machine) stays as the first run wrote it, and so does
    its command, unless that was to end before the test. A run that has come no further than its
    data has made nothing.

    Raises:
      InputError: the workdir is another configuration's.
    """
    path = workdir / "config.json"
    plain = json.loads(json.dumps(config.to_dict()))
    launcher = os.environ.get("SEMID_LAUNCHER", "python -m semid_jax.launch")
    command = f"{launcher} {shlex.join(argv)}".strip()
    made = {
        "command": command,
        "versions": provenance.versions(),
        "revision": provenance.revision(),
        "machine": provenance.machine(),
    }
    if path.exists() and (workdir / "features").exists():
        try:
            made = json.loads(path.read_text())
            theirs = flatten(made["config"])
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: torn; delete {workdir} and run again") from error
        ours = flatten(plain)
        differ = [
            name
            for name in sorted(theirs.keys() | ours.keys())
            if name.split(".")[0] not in FREE_SECTIONS and theirs.get(name) != ours.get(name)
        ]
        if differ:
            raise InputError(
                f"{workdir}: made by another config ({', '.join(differ[:4])} differ); "
                "name another --workdir, or delete this one"
            )
        if made["config"]["validate_only"]:
            made["command"] = command
    workdir.mkdir(parents=True, exist_ok=True)
    disk.write_json(path, {**made, "config": plain})


def data_stage(config: ConfigDict, workdir: Path) -> RawDataset:
    """Source to ArrayRecord, and back into memory; read again where the source has changed."""
    directory = workdir / "data"
    wanted = section(config, "data", DataConfig)
    inputs = source_inputs(wanted, directory)
    source = {**config.data.to_dict(), "expand": 0}  # that is the next stage's affair
    settings = {"data": source, "synthetic": config.synthetic.to_dict()}
    if not artifacts.matches(directory, "data", inputs, settings):
        started = time.perf_counter()
        raw = read(wanted, section(config, "synthetic", SyntheticConfig))
        with disk.atomic_folder(directory) as folder:
            builders.write(raw, folder, config.data.name)
            artifacts.seal(folder, "data", inputs, settings, since(started))
    raw = builders.read(directory)
    print(f"data: {describe(raw)}")
    check_trainable(raw.interactions)
    if config.data.name == "synthetic":
        print("data: a synthetic world; it checks the tokenizer and says nothing about accuracy")
    return expand_stage(config, workdir, raw) if config.data.expand else raw


def source_inputs(config: DataConfig, directory: Path) -> dict[str, str]:
    """What the artefact of the data is made from.

    Args:
      config: which data set.
      directory: of the artefact: it stands for a source that is no longer there.

    Raises:
      InputError: there is neither.
    """
    if config.name == "synthetic":
        return {}
    try:
        return {"source": source_hash(config)}
    except InputError:
        if not directory.exists():
            raise
        return artifacts.read_inputs(directory)


def expand_stage(config: ConfigDict, workdir: Path, raw: RawDataset) -> RawDataset:
    """Real data to as many items as are asked for; what was drawn is kept, as arrays."""
    directory, settings = workdir / "expanded", {"expand": config.data.expand}
    inputs = {"data": artifacts.content_hash(workdir / "data")}
    if not artifacts.matches(directory, "expanded", inputs, settings):
        started = time.perf_counter()
        drawn = dataclasses.asdict(draw(raw, config.data.expand))
        artifacts.write(directory, "expanded", drawn, inputs, settings, since(started))
    raw = expanded(raw, Expansion(**artifacts.read(directory, "expanded", mmap=True)[0]))
    print(f"data: expanded to {describe(raw)}")
    return raw


def features_stage(config: ConfigDict, workdir: Path, raw: RawDataset) -> ItemFeatures:
    """Raw features to normalised ones, fitted on training items."""
    directory, made_from = workdir / "features", "expanded" if config.data.expand else "data"
    inputs = {"data": artifacts.content_hash(workdir / made_from)}
    settings = config.features.to_dict()
    if not artifacts.matches(directory, "features", inputs, settings):
        started = time.perf_counter()
        wanted = section(config, "features", FeaturesConfig)
        if config.data.expand and wanted.modalities:
            wanted = dataclasses.replace(wanted, modalities=expanded_modalities(wanted.modalities))
        asked = raw.interactions, wanted.modalities, wanted.dimensions
        catalogue = with_behaviour(raw.catalogue, *asked)
        made, fitted = fit_transform(catalogue, train_items(raw.interactions), wanted)
        arrays = {f"x/{k}": v for k, v in made.x.items()}
        arrays |= {f"present/{k}": v for k, v in made.present.items()}
        arrays |= {f"fitted/{k}": v for k, v in fitted.items()}
        artifacts.write(directory, "features", arrays, inputs, settings, since(started))
    features = read_features(directory)
    shown = (f"{n} {features.x[n].shape[1]}-d" for n in features.modalities)
    print(f"features: {', '.join(shown)}")
    return features


def baselines_stage(
    config: ConfigDict, workdir: Path, raw: RawDataset, features: ItemFeatures
) -> dict[str, baselines.Baseline]:
    """Neighbourhood baselines, tuned on validation; the model and the seed have no part in them."""
    directory = workdir / "baselines"
    made_from = "expanded" if config.data.expand else "data"
    inputs = {name: artifacts.content_hash(workdir / name) for name in (made_from, "features")}
    if not artifacts.matches(directory, "baselines", inputs, {}):
        started = time.perf_counter()
        made = baselines.rank_all(raw.interactions, features)
        settings = {name: baseline.setting for name, baseline in made.items()}
        extra = {"settings": settings, **since(started)}
        artifacts.write(directory, "baselines", baselines.to_arrays(made), inputs, {}, extra)
    arrays, manifest = artifacts.read(directory, "baselines")
    return baselines.from_arrays(arrays, manifest["extra"]["settings"])
