"""Packaging and scripts: pins, the environment made once, errors before anything is installed."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = [*sorted((REPOSITORY / "launch").glob("*.sh")), REPOSITORY / ".ci" / "run"]

# Stands in for a Python: makes environments of itself and writes down what it is asked to do.
FAKE_PYTHON = """#!/bin/bash
echo "python $*" >>"$CALLS"
case "$1" in
  -c) exit "${FAKE_TOO_OLD:-0}" ;;
  --version) echo "Python 3.11.0" ;;
  -m)
    if [[ $2 == venv ]]; then mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python"; fi
    if [[ $2 == pip && -n ${FAKE_PIP_FAILS:-} ]]; then echo "no such release"; exit 1; fi
    ;;
esac
"""
FAKE_GCLOUD = """#!/bin/bash
echo "gcloud $*" >>"$CALLS"
"""


class Checkout:
    """A copy of what the scripts need, where only stand-ins are on the path."""

    def __init__(self, place: Path) -> None:
        self.place, self.calls, self.bin = place / "a copy", place / "calls", place / "bin"
        self.place.mkdir()
        self.bin.mkdir()
        shutil.copytree(REPOSITORY / "launch", self.place / "launch")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(REPOSITORY / name, self.place)
        needed = "bash cat cksum cp dirname env grep gzip mkdir mktemp mv rm tail"
        for name in needed.split():
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.program("python3.11", FAKE_PYTHON)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Runs a script from another folder."""
        environment = {"PATH": str(self.bin), "CALLS": str(self.calls), **variables}
        command = [str(self.bin / "bash"), str(self.place / "launch" / script), *arguments]
        return subprocess.run(
            command,
            env=environment,
            cwd=self.place.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def take_calls(self) -> list[str]:
        """What was called since the last time, probes left out."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith(("python -c", "python --version"))]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for pin in pins:
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), pin
        versions[canonicalize_name(pin.name)] = str(pin.specifier)[2:]
    assert len(versions) == len(pins)
    extras = project["optional-dependencies"]
    assert {"cuda", "tpu", "dev"} <= extras.keys()
    for line in project["dependencies"] + [line for extra in extras.values() for line in extra]:
        requirement = Requirement(line)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), line


def test_license_is_spdx_and_present() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()[:200]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_sound_bash(script: Path) -> None:
    result = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert script.name == "environment.sh" or os.access(script, os.X_OK)


def test_local_makes_the_environment_once(checkout: Checkout) -> None:
    result = checkout.run("local.sh", "--config.train.note=two words", "--workdir=w")
    assert result.returncode == 0, result.stderr
    venv, pip, launcher = checkout.take_calls()
    assert venv == f"python -m venv --clear {checkout.place}/.venv"
    assert pip.startswith("python -m pip install ")
    assert f"--constraint {checkout.place}/constraints.txt" in pip
    assert pip.endswith(f"--editable {checkout.place}")
    assert launcher == "python -m semid_jax.launch --config.train.note=two words --workdir=w"

    second = checkout.run("local.sh")
    assert (second.returncode, second.stderr) == (0, "")
    assert checkout.take_calls() == ["python -m semid_jax.launch"]


def test_environment_is_renewed_when_pins_change(checkout: Checkout) -> None:
    checkout.run("local.sh")
    checkout.take_calls()
    with open(checkout.place / "constraints.txt", "a") as file:
        file.write("more==1\n")
    assert checkout.run("local.sh").returncode == 0
    pip, launcher = checkout.take_calls()
    assert pip.startswith("python -m pip install ")
    assert launcher.startswith("python -m semid_jax.launch")
    checkout.run("local.sh")
    assert len(checkout.take_calls()) == 1


def test_tests_add_the_dev_extra_to_the_same_environment(checkout: Checkout) -> None:
    checkout.run("local.sh")
    checkout.take_calls()
    assert checkout.run("test.sh", "-k", "one").returncode == 0
    pip, *checks = checkout.take_calls()
    assert pip.endswith(f"--editable {checkout.place}[dev]")
    assert checks == [
        "python -m ruff check",
        "python -m ruff format --check",
        "python -m mypy",
        "python -m pytest -n 2 --dist=worksteal -k one",
    ]
    checkout.run("local.sh")
    assert checkout.take_calls() == ["python -m semid_jax.launch"]
    checkout.run("test.sh")
    assert len(checkout.take_calls()) == 4


def test_environment_with_an_extra_serves_the_plain_package(checkout: Checkout) -> None:
    checkout.run("test.sh")
    checkout.take_calls()
    checkout.run("local.sh")
    assert checkout.take_calls() == ["python -m semid_jax.launch"]


def test_broken_environment_is_made_again(checkout: Checkout) -> None:
    checkout.run("local.sh")
    checkout.take_calls()
    (checkout.place / ".venv" / "bin" / "python").unlink()
    assert checkout.run("local.sh").returncode == 0
    assert [line.split()[2] for line in checkout.take_calls()] == [
        "venv",
        "pip",
        "semid_jax.launch",
    ]


@pytest.mark.parametrize("too_old", [True, False])
def test_no_python_is_one_line(checkout: Checkout, too_old: bool) -> None:
    if not too_old:
        (checkout.bin / "python3.11").unlink()
    result = checkout.run("local.sh", FAKE_TOO_OLD="1")
    assert result.returncode == 2
    assert result.stderr.startswith("error: found no Python 3.11 or newer with venv: install one")
    assert result.stderr.count("\n") == 1
    assert not (checkout.place / ".venv").exists()


def test_chosen_python_comes_first(checkout: Checkout) -> None:
    checkout.program("my-python", FAKE_PYTHON.replace('echo "python', 'echo "mine'))
    checkout.run("local.sh", PYTHON=str(checkout.bin / "my-python"))
    assert {line.split()[0] for line in checkout.take_calls()} == {"mine"}


def test_failed_installation_is_shown_and_tried_again(checkout: Checkout) -> None:
    result = checkout.run("local.sh", FAKE_PIP_FAILS="1")
    assert result.returncode == 2
    *_, cause, error = result.stderr.splitlines()
    assert cause == "no such release"
    assert error.startswith("error: pip could not install semid_jax; the whole log is ")
    assert not any("semid_jax.launch" in line for line in checkout.take_calls())
    assert checkout.run("local.sh").returncode == 0
    assert [line.split()[2] for line in checkout.take_calls()] == ["pip", "semid_jax.launch"]


def test_gpu_checks_the_driver_before_installing(checkout: Checkout) -> None:
    result = checkout.run("gpu.sh")
    assert result.returncode == 2
    assert result.stderr.startswith("error: found no NVIDIA driver (nvidia-smi)")
    assert checkout.take_calls() == []
    checkout.program("nvidia-smi", "#!/bin/bash\necho GPU 0\n")
    assert checkout.run("gpu.sh", "--workdir=w").returncode == 0
    _, pip, launcher = checkout.take_calls()
    assert pip.endswith("[cuda]")
    assert launcher == "python -m semid_jax.launch --workdir=w"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "error: TPU_NAME is not set: export TPU_NAME=..."),
        ({"TPU_NAME": "slice"}, "error: ZONE is not set: export ZONE=..."),
        ({"TPU_NAME": "slice", "ZONE": "here"}, "error: gcloud is missing: install"),
    ],
)
def test_tpu_checks_its_variables_first(
    checkout: Checkout, variables: dict[str, str], message: str
) -> None:
    result = checkout.run("tpu_vm.sh", "run", **variables)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_tpu_runs_on_all_workers_with_flags_intact(checkout: Checkout) -> None:
    checkout.program("gcloud", FAKE_GCLOUD)
    variables = {"TPU_NAME": "slice", "ZONE": "here", "PROJECT": "mine"}
    result = checkout.run("tpu_vm.sh", "run", "--config.train.note=two words", **variables)
    assert result.returncode == 0, result.stderr
    assert checkout.take_calls() == [
        "gcloud compute tpus tpu-vm ssh slice --worker=all --command=cd semid_jax && "
        "bash launch/tpu_vm.sh worker --config.train.note=two\\ words  --zone=here --project=mine"
    ]
    assert checkout.run("tpu_vm.sh", "run", **variables).returncode == 0
    assert checkout.take_calls()[0].endswith("tpu_vm.sh worker  --zone=here --project=mine")
    checkout.run("tpu_vm.sh", "worker", "--config.train.note=two words")
    assert checkout.take_calls()[-1] == "python -m semid_jax.launch --config.train.note=two words"


def test_tpu_setup_sends_the_commit_to_all_workers(checkout: Checkout) -> None:
    checkout.program("gcloud", FAKE_GCLOUD)
    checkout.program("git", '#!/bin/bash\necho "git $*" >>"$CALLS"\n')
    result = checkout.run("tpu_vm.sh", "setup", TPU_NAME="slice", ZONE="here")
    assert result.returncode == 0, result.stderr
    calls = checkout.take_calls()
    assert calls[0].startswith(f"git -C {checkout.place} archive --format=tar.gz --output=")
    assert calls[0].endswith(" HEAD")
    assert re.match(
        r"gcloud compute tpus tpu-vm scp \S+ slice:semid_jax.tar.gz --worker=all", calls[1]
    )
    assert calls[2].startswith("gcloud compute tpus tpu-vm ssh slice --worker=all --command=set -e")
    assert "prepare tpu --zone=here" in calls[-1]
    archive = calls[0].split("--output=")[1].split()[0]
    assert not Path(archive).parent.exists()


def test_tpu_fetches_beside_no_other_results(checkout: Checkout) -> None:
    checkout.program("gcloud", FAKE_GCLOUD)
    variables = {"TPU_NAME": "slice", "ZONE": "here"}
    there = checkout.place / "fetched" / "ml"
    assert checkout.run("tpu_vm.sh", "fetch", "runs/ml", str(there), **variables).returncode == 0
    call = f"scp --recurse slice:semid_jax/runs/ml/results {there} --worker=0"
    assert call in checkout.take_calls()[-1]
    assert there.is_dir()
    (there / "results").mkdir()
    result = checkout.run("tpu_vm.sh", "fetch", "runs/ml", str(there), **variables)
    assert result.returncode == 2
    assert "results is there already" in result.stderr


def test_tpu_without_a_verb_says_which_there_are(checkout: Checkout) -> None:
    result = checkout.run("tpu_vm.sh")
    assert result.returncode == 2
    assert "expected setup, run, fetch or worker" in result.stderr
