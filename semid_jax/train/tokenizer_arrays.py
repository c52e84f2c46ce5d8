"""The tokenizer as named arrays, for its artefact."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from semid_jax.models.fusion import Archetypes
from semid_jax.models.pmat import PmatConfig, Population
from semid_jax.quantize import codebook
from semid_jax.train.readings import DriftNull, Readings
from semid_jax.train.semantic_ids import Tokenizer
from semid_jax.train.tokenizer import Frozen, make_module
from semid_jax.types import ItemFeatures

_READINGS = ("alpha", "alpha_short", "interest", "drift", "archetype", "archetype_short")
_PLAIN = ("points", "coarse", "fine", "drift", "threshold", "archetype")


def to_arrays(tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """All arrays of a tokenizer, by name."""
    frozen, archetypes, null = tokenizer.frozen, tokenizer.archetypes, tokenizer.null
    params = traverse_util.flatten_dict(frozen.params, sep="/")
    arrays = {f"pmat/{name}": np.asarray(value) for name, value in params.items()}
    arrays |= {
        f"codebook/{k}": np.asarray(v) for k, v in codebook.to_arrays(tokenizer.book).items()
    }
    arrays |= {f"readings/{name}": getattr(tokenizer.readings, name) for name in _READINGS}
    arrays |= {name: getattr(tokenizer, name) for name in _PLAIN}
    arrays |= {
        "frozen/e": np.asarray(frozen.e),
        "frozen/mask": np.asarray(frozen.mask),
        "frozen/attention": np.asarray(frozen.attention),
        "frozen/mean": np.asarray(frozen.population.mean),
        "frozen/spread": np.asarray(frozen.population.spread),
        "archetypes/alpha": np.asarray(archetypes.alpha),
        "archetypes/interest": np.asarray(archetypes.interest),
        "archetypes/gate": np.asarray(archetypes.gate),
        "null/mean": null.mean,
        "null/deviation": null.deviation,
        "null/threshold": null.threshold,
    }
    return arrays


def from_arrays(
    arrays: dict[str, np.ndarray], features: ItemFeatures, config: PmatConfig
) -> Tokenizer:
    """The inverse of `to_arrays`."""

    def group(name: str) -> dict[str, np.ndarray]:
        prefix = name + "/"
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    params = traverse_util.unflatten_dict(
        {k: jnp.asarray(v) for k, v in group("pmat").items()}, sep="/"
    )
    frozen = group("frozen")
    population = Population(jnp.asarray(frozen["mean"]), jnp.asarray(frozen["spread"]))
    e, mask, attention = (jnp.asarray(frozen[name]) for name in ("e", "mask", "attention"))
    return Tokenizer(
        module=make_module(features, config),
        frozen=Frozen(params, e, mask, attention, population),
        archetypes=Archetypes(**{k: jnp.asarray(v) for k, v in group("archetypes").items()}),
        book=codebook.from_arrays(group("codebook")),
        readings=Readings(**group("readings")),
        null=DriftNull(**group("null")),
        **{name: arrays[name] for name in _PLAIN},
    )
