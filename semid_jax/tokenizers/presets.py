"""Configurations of a generator on another tokenizer: what every file in configs/tokenizers is."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from semid_jax import launch
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.tokenizers.pctx import PctxConfig
from semid_jax.types import InputError

# Contexts and text, whitened: at PMAT's width components would be cut that weigh like others.
WIDTHS = {"pctx": PctxConfig.context_width + PctxConfig.text_width}
GENERATORS = {"hdnag": "hdnag.py", "gpt2": "baselines/gpt2.py"}


def of_tokenizer(method: str, arg: str, configs: Path) -> ConfigDict:
    """The configuration of a generator's preset with a tokenizer put in.

    Args:
      method: a key of tokenizers.registry.METHODS.
      arg: generator:preset, e.g. "gpt2:amazon_2014,category=Beauty"; either may be left out.
      configs: the folder of configurations.

    Raises:
      InputError: unknown generator or preset.
    """
    generator, _, preset = arg.partition(":")
    if generator and generator not in GENERATORS:
        known = ", ".join(GENERATORS)
        raise InputError(f"--config=…:{arg}: unknown generator {generator!r}; known are {known}")
    config = launch.load_config(configs / GENERATORS[generator or "hdnag"], preset)
    config.fuse.method = method
    if (generator or "hdnag") == "hdnag":
        # Of PMAT alone: every user sees the same items, and nothing is believed of anyone, so that
        # likeness is to a fading mean and starts as it does there.
        config.model.belief = False
        config.tokenizer.width = WIDTHS.get(method, config.tokenizer.width)
        config.model.likeness = GeneratorConfig.likeness
        config.quantize.digits -= config.quantize.shared
        config.quantize.shared = 0
    return config
