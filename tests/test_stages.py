"""What a workdir is made from, and when it may be another's."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from semid_jax import artifacts, stages
from semid_jax.checkpoint import Checkpoints
from semid_jax.data.expansion import expanded_modalities
from semid_jax.launch import load_config
from semid_jax.presets import make_config
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
