"""GPT2 over flattened semantic IDs: codes one after another, KV-cached constrained beam search.

    python -m semid_jax.launch --config=configs/baselines/gpt2.py:amazon_2014,category=Beauty

Residual k-means of three levels and a last digit that tells apart what the levels do not. Presets:
`amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the synthetic world,
to see it run).
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.decode.config import BeamConfig
from semid_jax.models.gpt2 import Gpt2Config
from semid_jax.presets import Preset, make_baseline
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

# Plain residual k-means: three levels of 256, lists of any size.
CODES = {"kind": "residual", "cells": 256, "digits": 2, "balance": 1e9}
OWN: dict[str, Preset] = {
    "amazon_2014": {
        "quantize": CODES,
        "train": {"max_length": 20, "evaluate_users": 4000, "lr": 3e-3},
    },
    "movielens_1m": {
        "quantize": CODES,
        "train": {"max_length": 50, "evaluate_users": 2000, "lr": 3e-3},
    },
    "tiny": {
        "quantize": {**CODES, "cells": 16, "codewords": 16, "iterations": 5},
        "model": {"width": 32, "layers": 1, "heads": 2},
        "decode": {"beam": 10, "k": 10},
    },
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "quantize": QuantizeConfig,
    "model": Gpt2Config,
    "decode": BeamConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_baseline`."""
    return make_baseline(arg, "gpt2", SECTIONS, OWN)
