"""The tokenizer as named arrays, for its artefact."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from semid_jax import artifacts
from semid_jax.models.fusion import Archetypes
from semid_jax.models.perceiver import Latents
from semid_jax.models.pmat import Pmat, PmatConfig
from semid_jax.quantize import codebook
from semid_jax.train.readings import Readings
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.tokenizer import Frozen

_READINGS = ("alpha", "alpha_short", "drift", "fired", "archetype", "belief")
_LATENTS = ("taste", "mean", "strength", "log_z", "cross", "log_weights", "log_tastes")
_PLAIN = ("points", "coarse", "fine", "threshold")


def to_arrays(tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """All arrays of a tokenizer, by name."""
    frozen, archetypes = tokenizer.frozen, tokenizer.archetypes
    params = traverse_util.flatten_dict(frozen.params, sep="/")
    arrays = {f"pmat/{name}": np.asarray(value) for name, value in params.items()}
    arrays |= {
        f"codebook/{k}": np.asarray(v) for k, v in codebook.to_arrays(tokenizer.book).items()
    }
    if tokenizer.shared is not None:
        shared = codebook.to_arrays(tokenizer.shared)
        arrays |= {f"shared/{k}": np.asarray(v) for k, v in shared.items()}
    arrays |= {f"readings/{name}": getattr(tokenizer.readings, name) for name in _READINGS}
    arrays |= {name: getattr(tokenizer, name) for name in _PLAIN}
    arrays |= {
        "frozen/e": np.asarray(frozen.e),
        "frozen/h": np.asarray(frozen.h),
        "frozen/mask": np.asarray(frozen.mask),
        "frozen/table": np.asarray(frozen.table),
        "frozen/readings": np.asarray(frozen.readings),
        "archetypes/alpha": np.asarray(archetypes.alpha),
        "archetypes/interest": np.asarray(archetypes.interest),
        "archetypes/gate": np.asarray(archetypes.gate),
    }
    arrays |= {f"latents/{name}": np.asarray(getattr(frozen.latents, name)) for name in _LATENTS}
    return arrays


def load(directory: Path) -> Tokenizer:
    """The tokenizer of a run: `directory` is WORKDIR/tokenizer. What is of the host stays on disk.

    Raises:
      InputError: no tokenizer's artefact, a torn one, or one of another revision.
    """
    arrays, manifest = artifacts.read(directory, "tokenizer", mmap=True)
    with artifacts.of_this_revision(directory):
        return from_arrays(arrays, PmatConfig(**manifest["config"]["tokenizer"]))


def from_arrays(arrays: dict[str, np.ndarray], config: PmatConfig) -> Tokenizer:
    """The inverse of `to_arrays`."""

    def group(name: str) -> dict[str, np.ndarray]:
        prefix = name + "/"
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    params = traverse_util.unflatten_dict(
        {k: jnp.asarray(v) for k, v in group("pmat").items()}, sep="/"
    )
    of_tastes = [name for name in params["params"] if name.startswith("taste_prior_")]
    modalities = tuple(sorted(name.removeprefix("taste_prior_") for name in of_tastes))
    frozen, shared = group("frozen"), group("shared")
    e, h = frozen["e"], frozen["h"]
    mask, table, read = (jnp.asarray(frozen[name]) for name in ("mask", "table", "readings"))
    latents = Latents(**{name: jnp.asarray(value) for name, value in group("latents").items()})
    return Tokenizer(
        module=Pmat(modalities, config, len(mask)),
        frozen=Frozen(params, e, h, mask, table, latents, read),
        archetypes=Archetypes(**{k: jnp.asarray(v) for k, v in group("archetypes").items()}),
        book=codebook.from_arrays(group("codebook")),
        shared=codebook.from_arrays(shared) if shared else None,
        readings=Readings(**group("readings")),
        **{name: arrays[name] for name in _PLAIN},
    )
