"""RPG: long unordered semantic IDs, all digits predicted at once, exact ranking and graph search.

    python -m semid_jax.launch --config=configs/baselines/rpg.py:amazon_2014,category=Beauty

Presets: `amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the
synthetic world, to see it run).
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.decode.config import GraphConfig
from semid_jax.models.rpg import RpgConfig
from semid_jax.presets import Preset, make_baseline
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

FLAT = {"cells": 1, "fine": "absolute"}
OWN: dict[str, Preset] = {
    "amazon_2014": {
        "features": {"modalities": ("text",), "whitening": 0.5},
        "quantize": {**FLAT, "digits": 32},
        "model": {"dropout": 0.3},
        "train": {"epochs": 30, "lr": 3e-3, "weight_decay": 0.3},
    },
    "movielens_1m": {"quantize": {**FLAT, "digits": 16}, "model": {"dropout": 0.2}},
    "tiny": {
        "quantize": {**FLAT, "digits": 8, "codewords": 32, "iterations": 5},
        "model": {"width": 32, "layers": 1, "heads": 2},
        "decode": {"beam": 8, "edges": 10, "hops": 2, "k": 20},
    },
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "quantize": QuantizeConfig,
    "model": RpgConfig,
    "decode": GraphConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_baseline`."""
    return make_baseline(arg, "rpg", SECTIONS, OWN)
