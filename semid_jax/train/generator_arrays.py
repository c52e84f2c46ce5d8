"""The generator's parameters: before training, and as named arrays for its artefact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from semid_jax import artifacts
from semid_jax.models.codes import Centroids
from semid_jax.models.hdnag import Generator, GeneratorConfig

KIND = "model"
SIZES = ("cells", "digits", "codewords", "max_length", "n_items", "content", "modalities")


def initialise(generator: Generator, centroids: Centroids, seed: int) -> Any:
    """The parameters before training."""
    blank = jnp.zeros((1, 2), jnp.int32)
    digits = jnp.zeros((1, 2, generator.digits), jnp.uint8)
    z = jnp.zeros((1, 2, generator.content))
    return jax.jit(generator.init)(jax.random.key(seed), centroids, blank, digits, z)


def settings_of(generator: Generator) -> dict[str, Any]:
    """What it takes to make the same module again."""
    sizes = {name: getattr(generator, name) for name in SIZES}
    return {"model": dataclasses.asdict(generator.config), **sizes}


def to_arrays(params: Any) -> dict[str, np.ndarray]:
    """All parameters, by name."""
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(params, sep="/").items()}


def load(directory: Path, centroids: Centroids) -> tuple[Generator, Any]:
    """The generator of a run and its parameters.

    Args:
      directory: WORKDIR/model.
      centroids: of the run's tokenizer.

    Raises:
      InputError: no generator's artefact, a torn one, or one whose parameters are those of
        another revision.
    """
    arrays, manifest = artifacts.read(directory, KIND)
    settings = manifest["config"]
    with artifacts.of_this_revision(directory):
        sizes = {name: settings[name] for name in SIZES}
        generator = Generator(GeneratorConfig(**settings["model"]), **sizes)
        wanted = jax.eval_shape(lambda: initialise(generator, centroids, 0))
        names = traverse_util.flatten_dict(wanted, sep="/").keys()
        if differ := names ^ arrays.keys():
            raise KeyError(min(differ))
    params = traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")
    return generator, params
