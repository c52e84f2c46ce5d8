"""What a workdir is made from, and when it may be another's."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax import artifacts, stages
from semid_jax.checkpoint import Checkpoints
from semid_jax.data.config import DataConfig, source_hash
from semid_jax.data.expansion import expanded_modalities
from semid_jax.launch import load_config
from semid_jax.presets import make_config
from semid_jax.recommenders.hdnag import tokenize_stage
from semid_jax.recommenders.static_ids import static_ids_stage
from semid_jax.train.loop import Progress, Trainer, train
from semid_jax.train.optimiser import TrainConfig
from semid_jax.types import InputError

HDNAG = Path(__file__).parent.parent / "configs" / "hdnag.py"


@pytest.fixture
def folder(tmp_path):
    """Five users who each choose four of six items."""
    source = tmp_path / "mine"
    source.mkdir()
    rows = [f"u{u}\ti{(u + t) % 6}\t{t}" for u in range(5) for t in range(4)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (source / "mine.inter").write_text("\n".join([header, *rows]))
    (source / "mine.item").write_text("\n".join(["item_id:token", *(f"i{i}" for i in range(6))]))
    np.save(source / "text_feat.npy", np.eye(6))
    return source


def config_of(source, **changes):
    config = load_config(HDNAG, f"folder,source_dir={source}")
    config.update_from_flattened_dict(changes)
    return config


def test_data_are_read_again_where_their_source_has_changed(folder, tmp_path):
    config, workdir = config_of(folder), tmp_path / "run"
    stages.data_stage(config, workdir)
    before = artifacts.content_hash(workdir / "data")
    made = (workdir / "data" / "manifest.json").stat().st_mtime_ns
    stages.data_stage(config, workdir)
    assert (workdir / "data" / "manifest.json").stat().st_mtime_ns == made
    path = folder / "mine.inter"
    path.write_text(path.read_text().replace("u4\ti1", "u4\ti2"))
    stages.data_stage(config, workdir)
    assert artifacts.content_hash(workdir / "data") != before
    folder.rename(folder.with_name("gone"))  # what was read stands for it
    stages.data_stage(config, workdir)
    with pytest.raises(InputError, match="no such folder"):
        stages.data_stage(config, tmp_path / "other")


def small_pmat(folder):
    config = config_of(folder, seed=3, **{"quantize.digits": 2, "train.max_length": 4})
    sizes = {"steps": 2, "width": 16, "candidates": 4, "batch_size": 2, "hidden": 8}
    config.update_from_flattened_dict({f"tokenizer.{name}": size for name, size in sizes.items()})
    return config


def small_codes(folder):
    return load_config(HDNAG.parent / "baselines" / "gpt2.py", f"folder,source_dir={folder}")


@pytest.mark.parametrize(
    ("make_config", "stage", "kind"),
    [
        (small_codes, static_ids_stage, "static_ids"),
        pytest.param(small_pmat, tokenize_stage, "tokenizer", marks=pytest.mark.slow),
    ],
)
def test_a_tokenizer_is_made_again_where_histories_have_changed(
    folder, tmp_path, make_config, stage, kind
):
    config, workdir = make_config(folder), tmp_path / "run"

    def made():
        raw = stages.data_stage(config, workdir)
        features = stages.features_stage(config, workdir, raw)
        stage(config, workdir, raw, features)
        manifest = artifacts.check(workdir / "tokenizer", kind)
        return artifacts.content_hash(workdir / "features"), manifest["inputs"]["data"]

    before, again = made(), made()
    assert before == again
    path = folder / "mine.inter"  # the last item of the last user: no training item changes
    path.write_text(path.read_text().replace("u4\ti1\t3", "u4\ti2\t3"))
    after = made()
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.group", 0),
        ("train.epochs", 0),
        ("train.evaluate_every", 0),
        ("train.buckets", (0, 10)),
        ("features.dimensions", 0),
        ("features.whitening", 1.5),
        ("report.users", -1),
        ("decode.k", 5),
        ("tokenizer.archetypes", 0),
        ("tokenizer.context", -1),
        ("tokenizer.budget", 1.5),
        ("decode.loss", -0.01),
        ("decode.recall", 0.0),
        ("seed", -1),
        ("recommender", "hdnga"),
    ],
)
def test_what_no_run_can_be_made_of_leaves_no_trace(folder, tmp_path, name, value):
    config = config_of(folder, **{name: value})
    with pytest.raises(InputError, match=name):
        stages.run(config, tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_lists_of_other_models_hold_something(tmp_path):
    config = load_config(HDNAG.parent / "baselines" / "sasrec.py", "tiny")
    config.decode.k = 0
    with pytest.raises(InputError, match=r"decode\.k=0: give 1 or more"):
        stages.run(config, tmp_path / "run", [])


def test_a_category_is_amazons_alone(folder, tmp_path):
    config = load_config(HDNAG.parent / "baselines" / "sasrec.py", "amazon_2014,category=Beauty")
    config.data.update({"name": "folder", "source_dir": str(folder)})
    stages.settle(config)
    before = source_hash(DataConfig(**config.data.to_dict()))
    path = folder / "mine.inter"
    path.write_text(path.read_text().replace("u4\ti1", "u4\ti2"))
    assert source_hash(DataConfig(**config.data.to_dict())) != before
    own = load_config(HDNAG.parent / "baselines" / "rpg.py", f"folder,source_dir={folder}")
    assert (own.data.name, own.data.category, own.features.modalities) == ("folder", "", ())


def test_movies_of_the_smaller_set_are_described_beside_it(tmp_path):
    for name in ("movielens_100k", "movielens_1m"):
        (tmp_path / name).mkdir()
    config = DataConfig("movielens_100k", str(tmp_path / "movielens_100k"))
    before = source_hash(config)
    (tmp_path / "movielens_1m" / "items.jsonl").write_text("{}")
    assert source_hash(config) != before


def test_histories_of_three_items_are_refused_before_anything_is_trained(folder, tmp_path):
    path = folder / "mine.inter"
    rows = [line for line in path.read_text().splitlines() if not line.endswith("\t3")]
    path.write_text("\n".join(rows))
    with pytest.raises(InputError, match="every history is 3 items long"):
        stages.data_stage(config_of(folder), tmp_path / "run")


def test_a_workdir_is_taken_once_its_features_are_made(folder, tmp_path):
    workdir = tmp_path / "run"
    stages.claim(config_of(folder), workdir, ["--first"])
    stages.claim(config_of(folder, **{"train.lr": 0.5}), workdir, ["--second"])
    (workdir / "features").mkdir()
    with pytest.raises(InputError, match=r"made by another config \(train.lr differ\)"):
        stages.claim(config_of(folder), workdir, ["--third"])
    assert json.loads((workdir / "config.json").read_text())["command"].endswith("--second")


def test_the_command_of_record_is_one_that_scores_the_test(folder, tmp_path):
    workdir = tmp_path / "run"
    (workdir / "features").mkdir(parents=True)
    for validate_only, word in ((True, "tunes"), (False, "tests"), (False, "again")):
        stages.claim(config_of(folder, validate_only=validate_only), workdir, [word])
    assert json.loads((workdir / "config.json").read_text())["command"].endswith(" tests")


@pytest.mark.parametrize("inputs", [{"tokenizer": "b"}, {}])
def test_checkpoints_of_another_tokenizer_are_refused(tmp_path, inputs):
    state = {"w": jnp.zeros(3)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    progress = Progress(step=1, inputs={"data": "d", "tokenizer": "a"})
    checkpoints.save(1, state, dataclasses.asdict(progress), None)
    checkpoints.close()
    settings = TrainConfig(), None, tmp_path, {"data": "d", **inputs}
    with pytest.raises(InputError, match=r"trained on another artefact \(tokenizer\); delete it"):
        train(state, None, None, None, None, *settings)


def test_a_loss_that_is_no_number_ends_the_training():
    trainer = Trainer(*[None] * 8)
    progress = Progress(step=7, sums={"item_loss": np.nan, "steps": 7.0, "count": 9.0})
    with pytest.raises(InputError, match=r"item_loss is nan by step 7.*set a smaller train\.lr"):
        trainer._evaluate(None, progress)


def test_numbers_of_a_preset_are_numbers():
    presets = {"folder": {"data": {"name": "folder"}}}
    found = make_config("folder,min_interactions=5,source_dir=7", presets, "hdnag", {})
    assert (found.data.min_interactions, found.data.source_dir) == (5, "7")
    with pytest.raises(InputError, match="expand=many is no int"):
        make_config("folder,expand=many", presets, "hdnag", {})


def test_of_drawn_items_only_what_they_have_is_asked():
    assert expanded_modalities(("image", "text")) == ("fused",)
    assert expanded_modalities(("behaviour", "text")) == ("behaviour", "fused")
