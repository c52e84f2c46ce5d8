"""Items as another tokenizer sees them, where the configuration names one."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from semid_jax.recommenders.common import section
from semid_jax.tokenizers.fused import Fused
from semid_jax.tokenizers.registry import method_of
from semid_jax.types import Interactions, ItemFeatures


def fuse_settings(config: ConfigDict) -> dict[str, Any]:
    """What an artefact made with the named tokenizer depends on; nothing where none is named."""
    name = config.fuse.method
    if not name:
        return {}
    return {"method": name, "seed": config.seed, **config[method_of(name).section].to_dict()}


def fused_items(
    config: ConfigDict, features: ItemFeatures, interactions: Interactions
) -> Fused | None:
    """Trains the named tokenizer; None where none is named.

    Args:
      config: resolved.
      features: normalised.
      interactions: histories; only their train parts are used.

    Raises:
      InputError: an unknown tokenizer.
    """
    if not config.fuse.method:
        return None
    method = method_of(config.fuse.method)
    settings = section(config, method.section, method.config)
    return method.fit(features, interactions, settings, config.seed)
