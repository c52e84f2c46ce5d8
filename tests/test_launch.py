"""The launcher: configuration, overrides, and wrong input met in one line with exit code 2."""

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

import semid_jax
from semid_jax import launch
from semid_jax.types import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHIPPED = [path for path in sorted(CONFIGS.rglob("*.py")) if path.parent.name != "studies"]
CONFIG_FILE = """
from ml_collections import ConfigDict
from semid_jax.types import InputError


def get_config(arguments=""):
    if arguments not in ("", "tiny", "beauty,fast"):
        raise InputError(f"preset {arguments!r} is unknown; did you mean tiny?")
    config = ConfigDict()
    config.data = dict(name="synthetic", category="", modalities=())
    if arguments.startswith("beauty"):
        config.data.update(name="amazon_2014", category="Beauty & Care")
    config.train = dict(learning_rate=1e-3, steps=10, resume=True, note="")
    config.pmat = dict(learning_rate=1e-2)
    config.decode = dict(methods=("inverted", "exact"), probes=(8, 16), margins=(0.5,))
    return config
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(CONFIG_FILE)
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Puts a stand-in for the stages in place and lists what it was called with."""
    found: list[tuple] = []
    install(monkeypatch, lambda *arguments: found.append(arguments))
    return found


def install(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    stages = types.ModuleType("semid_jax.stages")
    stages.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "semid_jax.stages", stages)
    monkeypatch.setattr(semid_jax, "stages", stages, raising=False)


def test_overrides_reach_the_stages_typed_and_locked(file: Path, calls: list[tuple]) -> None:
    arguments = [
        "--config.train.steps=7",
        f"--config={file}:tiny",
        "--config.train.learning_rate",
        "1",
        "--noconfig.train.resume",
        "--config.train.note=a=b, c",
        "--config.decode.methods=exact,scann",
        "--config.decode.probes=(4,)",
        "--config.decode.margins=1,2.5",
        "--config.data.modalities=text",
        "--workdir=here/there",
    ]
    assert launch.main(["launch", *arguments]) == 0
    ((config, workdir, argv),) = calls
    assert argv == arguments
    assert workdir == Path("here/there")
    assert config.train.to_dict() == {
        "learning_rate": 1.0,
        "steps": 7,
        "resume": False,
        "note": "a=b, c",
    }
    assert isinstance(config.train.learning_rate, float)
    assert config.decode.methods == ("exact", "scann")
    assert config.decode.probes == (4,)
    assert config.decode.margins == (1, 2.5)
    assert config.data.modalities == ("text",)
    with pytest.raises(AttributeError):
        config.train.typo = 1


def test_untouched_configuration_is_the_files(file: Path) -> None:
    config, _ = launch.resolve([f"--config={file}"])
    assert config.to_dict() == launch.load_config(file).to_dict()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_setting_of_a_shipped_configuration_can_be_given(path: Path) -> None:
    shipped = launch.load_config(path)
    settings = launch.flatten(shipped)
    arguments = [f"--config.{key}={value}" for key, value in settings.items()]
    config, _ = launch.resolve([f"--config={path}", *arguments])
    assert config.to_dict() == shipped.to_dict()


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("", "runs/toy-synthetic"),
        (":tiny", "runs/toy-tiny-synthetic"),
        (":beauty,fast", "runs/toy-beauty-amazon_2014-Beauty_Care"),
    ],
)
def test_default_workdir_tells_runs_apart(file: Path, preset: str, expected: str) -> None:
    assert launch.resolve([f"--config={file}{preset}"])[1] == Path(expected)


def test_workdir_does_not_repeat_a_preset_named_as_its_data(file: Path) -> None:
    config = ConfigDict({"data": {"name": "movielens_1m"}})
    workdir = launch.default_workdir(config, file, "movielens_1m")
    assert workdir == Path("runs/toy-movielens_1m")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.train.lr=1",
            "--config.train.lr: the configuration has no such key; "
            "did you mean --config.train.learning_rate or --config.pmat.learning_rate?",
        ),
        ("--config.train.stpes=1", "no such key; did you mean --config.train.steps?"),
        ("--config.tarin.steps=1", "no such key; did you mean --config.train.steps?"),
        ("--config.steps=1", "no such key; did you mean --config.train.steps?"),
        ("--config.zzz=1", "--config.zzz: the configuration has no such key"),
        ("--config.train=1", "--config.train: a section, set a key of it, e.g. --config.train."),
        ("--config.train.steps=many", "--config.train.steps=many: expected a whole number, e.g."),
        ("--config.train.steps=1.5", "expected a whole number, e.g. --config.train.steps=100"),
        ("--config.train.steps", "Missing value for flag --config.train.steps"),
        ("--config.train.learning_rate=x", "--config.train.learning_rate=x: expected a number"),
        ("--config.train.resume=maybe", "expected True or False, e.g. --config.train.resume=True"),
        ("--config.decode.methods=(1,2)", "--config.decode.methods=1,2: 1 is not text, e.g. "),
        ("--config.decode.probes=1,x", "'1,x' is not a whole number, e.g. --config.decode.probes"),
        ("--noconfig.train.steps", "no such flag; did you mean --config.train.steps?"),
        ("--wrokdir=x", "--wrokdir: there is no such flag; did you mean --workdir?"),
        ("steps=1", "steps=1: unexpected; flags are written --name=value"),
        ("--config", "--config: expected a file"),
    ],
)
def test_wrong_flag_is_one_line_and_exit_code_2(
    file: Path, calls: list, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert launch.main(["launch", f"--config={file}", argument]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert calls == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(arguments: ", "SyntaxError: "),
        ("def get_config(arguments):\n    return 1 / 0\n", "line 2: ZeroDivisionError: "),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "AttributeError: "),
        ("def get_config(arguments):\n    return {}\n", "must return an ml_collections.ConfigDict"),
    ],
)
def test_broken_configuration_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        launch.load_config(path)
    assert str(caught.value).startswith(f"--config={path}: ")


def test_missing_configuration_file_names_its_neighbours(file: Path) -> None:
    with pytest.raises(InputError, match=r"toi.py: there is no such file; did you mean toy.py\?"):
        launch.resolve([f"--config={file.parent / 'toi.py'}"])


def test_a_study_is_not_launched() -> None:
    study = Path(__file__).parent.parent / "configs" / "studies" / "hdnag_ablation.py"
    with pytest.raises(InputError, match=r"a study; run it by python -m semid_jax\.study"):
        launch.resolve([f"--config={study}"])


def test_unknown_preset_is_the_files_own_word(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["launch", f"--config={file}:tyni"]) == 2
    assert capsys.readouterr().err == "error: preset 'tyni' is unknown; did you mean tiny?\n"


def test_default_configuration_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repository = Path(launch.__file__).resolve().parent.parent
    assert launch._split_place("") == (repository / "configs" / "hdnag.py", "")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "hdnag.py").write_text(CONFIG_FILE)
    assert launch._split_place(":tiny") == (Path("configs/hdnag.py"), "tiny")


def test_wrong_input_of_a_stage_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise InputError("a.inter: no column\n  user_id")

    install(monkeypatch, run)
    assert launch.main(["launch", f"--config={file}"]) == 2
    assert capsys.readouterr().err == "error: a.inter: no column user_id\n"


def test_full_disk_in_a_stage_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise OSError(28, "No space left on device")

    install(monkeypatch, run)
    assert launch.main(["launch", f"--config={file}", "--workdir=w"]) == 2
    assert capsys.readouterr().err.startswith("error: w: the disk is full; ")


def test_interruption_tells_how_to_continue(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise KeyboardInterrupt

    install(monkeypatch, run)
    monkeypatch.setenv("SEMID_LAUNCHER", "bash launch/local.sh")
    arguments = [f"--config={file}", "--config.train.note=two words"]
    assert launch.main(["launch", *arguments]) == 130
    expected = f"bash launch/local.sh --config={file} '--config.train.note=two words'\n"
    assert capsys.readouterr().err == f"\ninterrupted; the same command continues: {expected}"


def test_other_errors_keep_their_traceback(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    install(monkeypatch, run)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        launch.main(["launch", f"--config={file}"])


def test_help_lists_every_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["launch", f"--config={file}", "--help"]) == 0
    output = capsys.readouterr().out
    for key in launch.flatten(launch.load_config(file)):
        assert f"--config.{key}=" in output
    assert "--config.decode.methods=inverted,exact\n" in output


def test_the_module_runs_as_a_program(file: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "semid_jax.launch", f"--config={file}"]
    result = subprocess.run(
        [*command, "--config.train.lr=1"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: --config.train.lr: the configuration has no such key")
    assert result.stderr.count("\n") == 1
