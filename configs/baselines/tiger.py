"""TIGER: a T5 reads the codes of a history and writes those of the next item.

    python -m semid_jax.launch --config=configs/baselines/tiger.py:amazon_2014,category=Beauty

Residual k-means of three levels and a last digit that tells apart what the levels do not. Presets:
`amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the synthetic world,
to see it run).
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.decode.config import BeamConfig
from semid_jax.models.tiger import TigerConfig
from semid_jax.presets import Preset, make_baseline
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

# Plain residual k-means: three levels of 256, lists of any size.
CODES = {"kind": "residual", "cells": 256, "digits": 2, "balance": 1e9}
OWN: dict[str, Preset] = {
    "amazon_2014": {
        "quantize": CODES,
        # Two minutes an epoch on two cores; validation still rises when these are over.
        "train": {"max_length": 20, "evaluate_users": 4000, "sliding": True, "epochs": 24},
    },
    "movielens_1m": {
        "quantize": CODES,
        "train": {"max_length": 20, "batch_size": 128, "evaluate_users": 2000, "sliding": True},
    },
    "tiny": {
        "quantize": {**CODES, "cells": 16, "codewords": 16, "iterations": 5},
        "model": {"width": 32, "head_width": 8, "feed_forward": 64},
        "decode": {"beam": 10, "k": 10},
        "train": {"sliding": True, "batch_size": 128, "max_length": 20},
    },
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "quantize": QuantizeConfig,
    "model": TigerConfig,
    "decode": BeamConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_baseline`."""
    return make_baseline(arg, "tiger", SECTIONS, OWN)
