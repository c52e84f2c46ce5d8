"""The entry: reads a configuration and runs the stages on it.

    python -m semid_jax.launch [--config=FILE[:ARGUMENTS]] [--config.SECTION.KEY=VALUE ...]
                               [--workdir=DIRECTORY]

--config    a Python file with get_config(arguments); configs/hdnag.py if not given
--workdir   where everything goes; runs/<file>-<preset>-<data set> if not given

The same command on the same workdir continues an interrupted run; finished stages are skipped.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from semid_jax import disk
from semid_jax.types import InputError

DEFAULT_CONFIG = Path("configs", "hdnag.py")
BAD_INPUT = 2
INTERRUPTED = 130

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)")
_EXAMPLES = {int: "100", float: "1e-3", bool: "True", tuple: "a,b"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher.

    Args:
      argv: the command line, the program's name first; sys.argv if not given.

    Returns:
      The exit code: 0, 2 after one line about a wrong input, 130 if interrupted.
    """
    arguments = list(sys.argv if argv is None else argv)[1:]
    if any(re.fullmatch(r"--?h(elp(full|short)?)?", argument) for argument in arguments):
        return _help(arguments)
    try:
        config, workdir = resolve(arguments)
        # grain's worker processes ask whether absl's own flags were parsed.
        flags.FLAGS.mark_as_parsed()
        # Late, so that a mistyped flag is met before jax is loaded.
        from semid_jax import stages

        with disk.disk_errors(workdir):
            stages.run(config, workdir, arguments)
    except InputError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        launcher = os.environ.get("SEMID_LAUNCHER", "python -m semid_jax.launch")
        command = " ".join([launcher, shlex.join(arguments)]).strip()
        print(f"\ninterrupted; the same command continues: {command}", file=sys.stderr)
        return INTERRUPTED
    return 0


def resolve(arguments: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Reads the command line.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The locked configuration with its overrides, and the workdir.

    Raises:
      InputError: something on the command line is wrong; the message names it and its near misses.
    """
    place, arguments = _take_config(arguments)
    file, preset = _split_place(place)
    config = load_config(file, preset)
    if "rows" in config and "recommender" not in config:
        raise InputError(f"--config={place}: a study; run it by python -m semid_jax.study")
    config, workdir = _apply_flags(config, arguments)
    return config, Path(workdir or default_workdir(config, file, preset))


def load_config(file: Path, arguments: str = "") -> ConfigDict:
    """Loads a configuration file.

    Args:
      file: a Python file that defines get_config.
      arguments: what get_config is called with.

    Returns:
      What get_config returned.

    Raises:
      InputError: the file is missing or wrong, or refuses the arguments.
    """
    if not file.is_file():
        near = _near(file.name, [path.name for path in sorted(file.parent.glob("*.py"))])
        raise InputError(f"--config={file}: there is no such file{near}")
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={file}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--config={file}: {_where(error, file)}{_one_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={file}: get_config must return an ml_collections.ConfigDict")
    return config


def default_workdir(config: ConfigDict, file: Path, preset: str = "") -> Path:
    """The workdir of a run that names none: runs/<file>-<preset>-<data set>[-<category>].

    Args:
      config: the configuration; `data.name` and, of amazon_2014, `data.category` are used if they
        exist.
      file: the configuration file.
      preset: the arguments of get_config; the part before the first comma is used.

    Returns:
      A path relative to where the command was given.
    """
    data = config.get("data", {})
    name = data.get("name", "")
    category = data.get("category", "") if name == "amazon_2014" else ""
    parts = (file.stem, preset.split(",")[0], name, category)
    names = [re.sub(r"[^\w.]+", "_", part) for part in parts]
    return Path("runs", "-".join(dict.fromkeys(name for name in names if name)))


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The leaves of a configuration, by dotted key, in its own order."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _take_config(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Takes the last --config out of the command line; overrides may stand before or after it."""
    place, rest = "", []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if re.match(r"--?config=", argument):
            place = argument.split("=", 1)[1]
        elif re.fullmatch(r"--?config", argument):
            place = remaining.pop(0) if remaining else ""
            if not place or place.startswith("-"):
                raise InputError("--config: expected a file, e.g. --config=configs/hdnag.py")
        else:
            rest.append(argument)
    return place, rest


def _split_place(place: str) -> tuple[Path, str]:
    """Splits FILE[:ARGUMENTS]; with no FILE, the default one here or beside the package."""
    name, _, preset = place.partition(":")
    if name:
        return Path(name), preset
    beside = Path(__file__).resolve().parent.parent / DEFAULT_CONFIG
    return (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else beside), preset


def _apply_flags(config: ConfigDict, arguments: list[str]) -> tuple[ConfigDict, str]:
    """Returns the configuration with its overrides, locked, and the workdir, "" if not given."""
    leaves = flatten(config)
    _check_keys(config, leaves, arguments)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "where everything goes", flag_values=values)
    argv = ["launch", *(_split_list(argument, leaves) for argument in arguments)]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        extra = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        raise _wrong_type(str(error), leaves) from error
    except flags.UnrecognizedFlagError as error:
        near = _near(
            error.flagname, ["config", "workdir", *(f"config.{key}" for key in leaves)], "--"
        )
        raise InputError(f"--{error.flagname}: there is no such flag{near}") from error
    except flags.Error as error:
        raise InputError(str(error)) from error
    if extra:
        raise InputError(f"{extra[0]}: unexpected; flags are written --name=value")
    for key, value in flatten(values.config).items():
        _check_elements(key, value, leaves[key])
    return values.config, values.workdir


def _check_keys(config: ConfigDict, leaves: dict[str, Any], arguments: list[str]) -> None:
    """Refuses overrides of keys that the configuration does not have."""
    for argument in arguments:
        override = _OVERRIDE.match(argument)
        if override is None or override[2] in leaves:
            continue
        key = override[2]
        inside = [leaf for leaf in leaves if leaf.startswith(f"{key}.")]
        if key and inside:
            raise InputError(
                f"--config.{key}: a section, set a key of it, e.g. --config.{inside[0]}="
                f"{_write(leaves[inside[0]])}"
            )
        near = _near(key, list(leaves), "--config.")
        raise InputError(f"--config.{key}: the configuration has no such key{near}")


def _split_list(argument: str, leaves: dict[str, Any]) -> str:
    """Lets a tuple of names be written without quotes: --config.data.modalities=image,text."""
    override = _OVERRIDE.match(argument)
    if override is None or not isinstance(leaves.get(override[2]), tuple) or "=" not in argument:
        return argument
    name, value = argument.split("=", 1)
    if value.startswith(("(", "[")):
        return argument
    default = leaves[override[2]]
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    if not names or not default or isinstance(default[0], str):
        return f"{name}={names!r}"
    return argument


def _wrong_type(message: str, leaves: dict[str, Any]) -> InputError:
    """Words absl's message about a value that does not parse."""
    found = re.match(r"flag --config\.([^=]*)=(.*?): ", message, re.DOTALL)
    if found is None or found[1] not in leaves:
        return InputError(message)
    kind = type(leaves[found[1]])
    return InputError(
        f"--config.{found[1]}={found[2]}: expected {_name(kind)}, e.g. "
        f"--config.{found[1]}={_EXAMPLES.get(kind, 'text')}"
    )


def _check_elements(key: str, value: Any, default: Any) -> None:
    """Refuses a tuple whose elements are of another type than the default's."""
    if not isinstance(default, tuple) or not default:
        return
    kind = type(default[0])
    accepted = (int, float) if kind is float else (kind,)
    for element in value:
        if not isinstance(element, accepted):
            raise InputError(
                f"--config.{key}={_write(value)}: {element!r} is not {_name(kind)}, e.g. "
                f"--config.{key}={_write(default)}"
            )


def _near(wrong: str, names: Sequence[str], prefix: str = "") -> str:
    """Says which names a mistyped one is closest to, or nothing."""
    scores = {name: _likeness(wrong, name) for name in names}
    near = sorted((name for name in names if scores[name] > 0.65), key=lambda name: -scores[name])
    return f"; did you mean {' or '.join(prefix + name for name in near[:3])}?" if near else ""


def _likeness(wrong: str, name: str) -> float:
    """How alike two dotted keys are, 0 to 1; the last part counts most, so do initials."""
    section, _, key = name.rpartition(".")
    wrong_section, _, wrong_key = wrong.rpartition(".")
    short = wrong_key in (key, _initials(key)) or key == _initials(wrong_key)
    alike = 1.0 if short else _ratio(wrong_key, key)
    return 0.3 * (_ratio(wrong_section, section) if wrong_section else 1.0) + 0.7 * alike


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.split("_"))


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(a=a, b=b, autojunk=False).ratio()


def _name(kind: type) -> str:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    return names.get(kind, "a list")


def _write(value: Any) -> str:
    """A value as one writes it on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _where(error: Exception, file: Path) -> str:
    """The line of a configuration file that an error comes from, and the error's type."""
    if isinstance(error, SyntaxError):
        return "SyntaxError: "
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == file
    ]
    line = f"line {lines[-1]}: " if lines else ""
    return f"{line}{type(error).__name__}: "


def _help(arguments: list[str]) -> int:
    """Prints how to call the launcher and, where the file can be read, every key with its value."""
    print(__doc__)
    with contextlib.suppress(InputError):
        place, _ = _take_config(arguments)
        file, preset = _split_place(place)
        print(f"Keys of {file}{':' if preset else ''}{preset} and their values:\n")
        for key, value in flatten(load_config(file, preset)).items():
            print(f"  --config.{key}={_write(value)}")
    return 0


def _quiet() -> None:
    """Keeps the libraries' notices off the terminal; what they raise still comes through.

    Orbax logs the traceback of every error that it also raises, a full disk's among them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    absl_logging.set_verbosity(absl_logging.FATAL)
    if not sys.warnoptions:
        for category in (DeprecationWarning, FutureWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
