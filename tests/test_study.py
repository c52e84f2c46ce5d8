"""Studies: variants of one configuration by their validation."""

import contextlib
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semid_jax import artifacts, disk, launch, stages, study
from semid_jax.report.ranks import read_ranks
from semid_jax.report.records import load_record, load_study
from semid_jax.report.variants import variant_rows
from semid_jax.types import InputError

ROOT = Path(__file__).parent.parent
STUDY = """
from ml_collections import ConfigDict

def get_config(arg=""):
    base = "--config={config}:tiny --config.train.epochs=1"
    return ConfigDict(
        {{"base": base, "rows": (("whole", ""), ("half of it", "--config.quantize.digits=4"))}}
    )
"""


def run(row, seed, ndcg, best=1, revision="aaaaaaaaaa"):
    validation = {"ndcg@10": ndcg, "recall@10": 2 * ndcg}
    steps = {"best_step": best, "steps": 2}
    return {"row": row, "seed": seed, "validation": validation, **steps, "revision": revision}


def test_a_variant_is_compared_with_the_first_over_their_common_seeds():
    runs = [run("a", 0, 0.2), run("a", 1, 0.4, 2), run("b", 1, 0.5), run("b", 2, 0.9)]
    a, b = variant_rows({"runs": runs})
    assert (a["row"], a["ndcg@10"], a["recall@10"]) == ("a", pytest.approx(0.3), pytest.approx(0.6))
    assert a["spread"] == pytest.approx(0.02**0.5)
    assert (a["seeds"], a["trained"]) == (2, 0.75)
    assert "relative" not in a
    assert b["relative"] == pytest.approx(0.25)  # .5 against .4, seed 1
    assert "revision" not in a


def test_a_study_of_several_revisions_names_them():
    runs = [run("a", 0, 0.2), run("b", 0, 0.5), run("b", 1, 0.9, revision="0123456789-dirty")]
    a, b = variant_rows({"runs": runs})
    assert (a["revision"], b["revision"]) == ("aaaaaaa", "0123456, aaaaaaa")


def test_what_counts_is_calibrated_where_a_run_calibrates(tmp_path):
    best = {"step": 3, "train.item_loss": 2.0, "validation.ndcg@10": 0.1}
    assert study._validation(tmp_path, best) == {"ndcg@10": 0.1}
    notes = {"factor": 2.0, "scale": 0.0, "plain": {"ndcg@10": 0.1}, "validation": {"ndcg@10": 0.2}}
    artifacts.write(tmp_path / "calibration", "calibration", {}, {}, {}, notes)
    assert study._validation(tmp_path, best) == {"ndcg@10": 0.2}


def test_cells_probed_are_those_that_validation_has_chosen(tmp_path):
    assert study._probed(tmp_path) == {}
    losses = {str(probes): {"mean": 0.0, "upper": 0.0} for probes in (5, 10, 40)}
    artifacts.write(tmp_path / "probes", "probes", {}, {}, {}, {"probes": 10, "losses": losses})
    assert study._probed(tmp_path) == {"probed": 0.25}
    runs = [{**run("a", 0, 0.2), "probed": 0.25}, {**run("a", 1, 0.2), "probed": 0.5}]
    a, b = variant_rows({"runs": [*runs, run("b", 0, 0.1)]})
    assert a["probed"] == 0.375
    assert "probed" not in b


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "studies").glob("*.py")))
def test_every_row_of_a_shipped_study_is_a_configuration_that_can_be(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = launch.load_config(file)
    assert len(made.rows) > 1
    for name, own in made.rows:
        assert "," not in name  # --rows could not name it
        arguments = [*shlex.split(made.base), *shlex.split(own), "--config.validate_only=True"]
        config, _ = launch.resolve(arguments)
        stages.CHECKS[config.recommender](config)


def test_a_study_runs_what_is_missing_and_keeps_the_rest(tmp_path, capfd):
    file = tmp_path / "small.py"
    file.write_text(STUDY.format(config=ROOT / "configs" / "baselines" / "rpg.py"))
    arguments = [f"--config={file}", f"--workdir={tmp_path / 'w'}", f"--results={tmp_path / 'r'}"]
    assert study.main([*arguments, "--rows=whole"]) == 0
    kept, whole = tmp_path / "r" / "studies" / "small.json", tmp_path / "w" / "whole-0"
    (run,) = load_study(kept)["runs"]
    history = (whole / "results" / "history.jsonl").read_text()
    (line,) = [json.loads(text) for text in history.splitlines()]
    assert run["validation"]["ndcg@10"] == line["validation.ndcg@10"]
    assert run["best_step"] == run["steps"] == line["step"]
    assert not (whole / "evaluation").exists()

    assert study.main(arguments) == 0
    assert [run["row"] for run in load_study(kept)["runs"]] == ["whole", "half of it"]
    out = capfd.readouterr().out
    assert out.count("--- whole") == 1
    assert out.splitlines()[-1] == str(kept)

    # What both make alike is made once; the second's IDs are its own, the first's as they were.
    other = tmp_path / "w" / "half_of_it-0"
    assert (whole / "features" / "manifest.json").samefile(other / "features" / "manifest.json")
    codes = [artifacts.read(at / "tokenizer", "static_ids")[0]["fine"] for at in (whole, other)]
    assert [made.shape[-1] for made in codes] == [8, 4]

    # Whole runs go on from there and become records, lists measured in the first row's features;
    # of several at once each has a log of its own.
    assert study.main([*arguments, "--rows=half of it", "--record=tokenizers", "--jobs=2"]) == 0
    assert "Test, history not excluded" in (other / "log.txt").read_text()
    path = tmp_path / "r" / "tokenizers" / "synthetic-rpg_half_of_it-0.json"
    assert load_record(path).model == "rpg/half of it"
    assert set(read_ranks(path).diversity) == {"audio", "image", "text"}
    out = capfd.readouterr().out
    assert f"\n{path}\n" in out
    assert "rpg/half of it" in out.split(str(path))[1]
    assert len(load_study(kept)["runs"]) == 2
    # A first row whose folder is there, but never ran, measures nothing.
    (whole / "config.json").unlink()
    path.unlink()
    assert study.main([*arguments, "--rows=half of it", "--record=tokenizers"]) == 0
    assert load_record(path).model == "rpg/half of it"


def test_after_a_run_that_failed_none_is_started():
    started, kept = [], []

    def run(row, seed):
        started.append((row, seed))
        return 3 if row == "b" else 0

    wanted = [(row, 0) for row in "abcdefgh"]
    processes = study.Processes()
    assert study._run_all(run, wanted, 1, lambda *pair: kept.append(pair), processes) == 3
    assert started == wanted[:2]
    assert kept == wanted[:1]


def test_a_row_that_has_begun_may_start_its_run_until_the_study_ends():
    processes = study.Processes()
    processes.may_start = False
    command = [sys.executable, "-c", ""]
    assert processes.run(command) == 0
    processes.end()
    assert processes.run(command) == launch.INTERRUPTED


def test_runs_end_with_the_study_that_is_told_to(tmp_path):
    file, workdir = tmp_path / "small.py", tmp_path / "w"
    file.write_text(STUDY.format(config=ROOT / "configs" / "baselines" / "rpg.py"))
    command = [sys.executable, "-m", "semid_jax.study", f"--config={file}", f"--workdir={workdir}"]
    process = subprocess.Popen(
        [*command, f"--results={tmp_path / 'r'}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    config = workdir / "whole-0" / "config.json"  # a run writes it first
    while not config.exists() and process.poll() is None:
        time.sleep(0.05)
    assert _processes_of(workdir)
    process.terminate()
    assert "the same command continues" in process.communicate(timeout=60)[1]
    assert process.returncode == launch.INTERRUPTED
    assert not _processes_of(workdir)


def _processes_of(workdir):
    """The runs in a folder below `workdir`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes())
    return [line for line in found if f"--workdir={workdir}/".encode() in line]


BOTH = (("b", 1), ("b", 0), ("a", 0))


def test_rows_are_kept_in_the_order_of_the_study(tmp_path):
    def arguments(row, seed):
        return [f"--{row}", f"--seed={seed}"]

    made = {pair: {**run(*pair, 0.1), "arguments": arguments(*pair)} for pair in BOTH}
    for (row, seed), one in made.items():
        disk.write_json(tmp_path / f"{row}-{seed}" / "variant.json", one)
    kept = tmp_path / "kept.json"
    # What the file held of rows as they are today stays; of a row that has changed, or gone, not.
    other = {**run("a", 1, 0.2), "arguments": arguments("a", 1)}
    changed = {**run("b", 2, 0.2), "arguments": ["--b", "--more", "--seed=2"]}
    gone = {**run("c", 0, 0.2), "arguments": arguments("c", 0)}
    disk.write_json(kept, {"base": "", "versions": {}, "runs": [gone, other, changed]})
    study._keep(kept, tmp_path, "", ["b", "a"], arguments)
    runs = load_study(kept)["runs"]
    assert [(run["row"], run["seed"]) for run in runs] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]


def test_a_seed_named_twice_is_run_once():
    assert study._seeds("2,0,2") == [2, 0]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config=configs/hdnag.py", "configs/hdnag.py: no study; those are in configs/studies/"),
        ("--rows=wole", "no row 'wole', known are whole, half of it"),
        ("--seeds=a", "--seeds=a: expected whole numbers"),
    ],
)
def test_a_wrong_choice_is_named(argument, message, tmp_path, capsys):
    file = tmp_path / "small.py"
    file.write_text(STUDY.format(config="configs/hdnag.py"))
    assert study.main([f"--config={file}", argument]) == launch.BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_torn_study_is_named(tmp_path):
    path = tmp_path / "torn.json"
    path.write_text('{"base": ""}')
    with pytest.raises(InputError, match=r"torn\.json: the study has no runs"):
        load_study(path)
