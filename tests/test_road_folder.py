"""A user's own data through the launcher: what is counted and said, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import REPOSITORY

from semid_jax import artifacts
from semid_jax import launch as launcher

SMALL = [
    "--config.tokenizer.steps=8", "--config.tokenizer.width=16",
    "--config.tokenizer.archetypes=2", "--config.tokenizer.candidates=32",
    "--config.tokenizer.context=8", "--config.tokenizer.context_steps=8",
    "--config.quantize.digits=4", "--config.quantize.codewords=16",
    "--config.quantize.iterations=3", "--config.quantize.rotation_iterations=1",
    "--config.model.width=16", "--config.model.layers=1",
    "--config.model.heads=2", "--config.model.digit_width=4", "--config.train.epochs=1",
    "--config.train.batch_size=32", "--config.train.group=8", "--config.decode.k=10",
    "--config.report.users=1",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    place = tmp_path / "mine"
    place.mkdir()
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(80):
        for time in range(8):
            rows.append(f"u{user}\ti{rng.integers(50)}\t{100 * user + time}")
    rows += ["u3\ti7\t399", "u3\ti7\t399"]  # the same triple twice
    rows += ["late\ti1\t5", "late\ti2\t3", "late\ti3\t4"]  # times out of order
    rows += ["short\ti1\t1"]
    (place / "mine.inter").write_text("\n".join(rows) + "\n")
    items = [f"i{i}\tItem {i}\tclass{i % 4}" for i in range(50)]
    (place / "mine.item").write_text("item_id:token\ttitle:token_seq\tclass:token_seq\n"
                                     + "\n".join(items) + "\n")  # fmt: skip
    np.save(place / "text_feat.npy", rng.normal(size=(50, 6)))
    image = rng.normal(size=(50, 5))
    image[4] = np.nan  # item i4 has no image
    np.save(place / "image_feat.npy", image)
    return place


def arguments(folder, workdir, *more):
    config = f"--config={REPOSITORY}/configs/hdnag.py:folder,source_dir={folder}"
    return [config, f"--workdir={workdir}", *SMALL, *more]


def launch(folder, workdir, *more):
    return subprocess.run(
        [sys.executable, "-m", "semid_jax.launch", *arguments(folder, workdir, *more)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )


def refused(capsys, folder, workdir, *more):
    """What is said of a command that is refused, in this process: importing takes five seconds."""
    assert launcher.main(["launch", *arguments(folder, workdir, *more)]) == launcher.BAD_INPUT
    return capsys.readouterr().err


def test_own_data_end_with_lists_of_original_ids(folder, tmp_path):
    done = launch(folder, tmp_path / "run", "--config.decode.methods=inverted,leaves,pruned,exact")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    for said in ("81 users", "1 duplicate", "1 users too short", "1 items without image"):
        assert said in first, first
    lists = parquet.read_table(tmp_path / "run" / "results" / "recommendations.parquet").to_pydict()
    assert set(lists["user_id"]) == {*(f"u{u}" for u in range(80)), "late"}
    assert set(lists["item_id"]) <= {f"i{i}" for i in range(50)}
    assert lists["rank"][:3] == [1, 2, 3]
    # No number of probes is given: as few are taken as validation allows.
    notes = artifacts.read_extra(tmp_path / "run" / "probes")
    metrics = json.loads((tmp_path / "run" / "results" / "metrics.json").read_text())
    assert metrics["search"]["probes"] == notes["probes"]
    assert notes["losses"][str(notes["probes"])]["upper"] <= 0.005
    assert f"probes: {notes['probes']} of " in done.stdout
    stories = json.loads((tmp_path / "run" / "results" / "users.json").read_text())
    assert stories[0]["recommendations"][0]["title"].startswith("Item ")


@pytest.mark.parametrize(
    ("damage", "flags", "message"),
    [
        (lambda f: f.rename(f.with_name("gone")), [], "no such folder"),
        (lambda f: None, ["--config.features.modalities=image,txt"], "did you mean 'text'?"),
        (lambda f: None, ["--config.data.name=movielens_1n"], "did you mean 'movielens_1m'?"),
        (
            lambda f: np.save(f / "text_feat.npy", np.zeros((49, 6))),
            [],
            "text_feat.npy: 49 rows, but mine.item has 50 items",
        ),
        (
            lambda f: np.save(f / "text_feat.npy", np.full((50, 6), np.inf)),
            [],
            "text_feat.npy: non-finite value inf in row 0",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_half_written(
    folder, tmp_path, damage, flags, message, capsys
):
    damage(folder)
    workdir = tmp_path / "run"
    said = refused(capsys, folder, workdir, *flags)
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    left = {path.name for path in workdir.glob("*")} if workdir.exists() else set()
    assert left <= {"config.json", "data"}


def test_a_torn_file_of_a_workdir_is_named(folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    # Stops behind the data stage.
    refused(capsys, folder, workdir, "--config.features.modalities=txt")
    (record,) = workdir.glob("data/**/users/**/*.array_record*")
    record.write_bytes(record.read_bytes()[:-100])
    said = refused(capsys, folder, workdir, "--config.features.modalities=txt")
    assert record.name in said
    assert "delete" in said
