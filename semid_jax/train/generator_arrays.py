"""The generator as named arrays, for its artefact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from semid_jax import artifacts
from semid_jax.models.hdnag import Generator, GeneratorConfig

KIND = "model"
SIZES = ("cells", "digits", "codewords", "max_length", "n_items", "content", "modalities")


def settings_of(generator: Generator) -> dict[str, Any]:
    """What it takes to make the same module again."""
    sizes = {name: getattr(generator, name) for name in SIZES}
    return {"model": dataclasses.asdict(generator.config), **sizes}


def to_arrays(params: Any) -> dict[str, np.ndarray]:
    """All parameters, by name."""
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(params, sep="/").items()}


def load(directory: Path) -> tuple[Generator, Any]:
    """The generator of a run and its parameters: `directory` is WORKDIR/model.

    Raises:
      InputError: no generator's artefact, or a torn one.
    """
    arrays, manifest = artifacts.read(directory, KIND)
    settings = manifest["config"]
    sizes = {name: settings[name] for name in SIZES}
    generator = Generator(GeneratorConfig(**settings["model"]), **sizes)
    params = traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")
    return generator, params
