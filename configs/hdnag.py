"""HDNAG on PMAT's semantic IDs.

    bash launch/local.sh --config=configs/hdnag.py
    python -m semid_jax.launch --config=configs/hdnag.py:movielens_1m

Presets: none (the synthetic world: it checks the tokenizer and says nothing about accuracy in the
world), `tiny` (the same, minutes smaller), `movielens_1m`, `movielens_100k`, `situnes`,
`amazon_2014,category=Beauty`, `folder,source_dir=PATH`. What each printed when it was last run,
how long it took and on what machine stands in README.md, made from results/.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.decode.config import DecodeConfig
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.presets import Preset, make_config
from semid_jax.profiling import ProfileConfig
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

PRESETS: dict[str, Preset] = {
    "synthetic": {
        "data": {"name": "synthetic"},
        "train": {"epochs": 8, "batch_size": 64, "group": 8, "weight_decay": 0.3},
        "tokenizer": {"steps": 600},
        "quantize": {"digits": 24, "shared": 8},
        "model": {"belief": True, "likeness": 0.5, "popularity": True, "dropout": 0.5},
    },
    "tiny": {
        "data": {"name": "synthetic"},
        "synthetic": {"n_users": 300, "n_items": 200, "topics": 6},
        "tokenizer": {"steps": 40, "width": 32, "archetypes": 4, "candidates": 128},
        "quantize": {
            "digits": 8,
            "shared": 4,
            "codewords": 32,
            "iterations": 5,
            "rotation_iterations": 2,
        },
        "model": {
            "width": 32,
            "layers": 1,
            "heads": 2,
            "digit_width": 8,
            "belief": True,
            "popularity": True,
        },
        "train": {
            "epochs": 2,
            "batch_size": 32,
            "group": 8,
            "buckets": (50,),  # to compile one length takes longer than to train it
            "checkpoint_steps": 5,
        },
        "decode": {"probes": 4, "k": 20},
    },
    "movielens_1m": {
        "data": {"name": "movielens_1m"},
        "features": {"modalities": ("image", "text")},
        "tokenizer": {"archetypes": 1},
        "model": {"dense": "free"},
        "loss": {"products": "auto"},
        "train": {
            "epochs": 24,
            "max_length": 200,
            "batch_size": 32,
            "group": 32,
            "lr": 3e-3,
            "weight_decay": 0.3,
            "evaluate_every": 2,
        },
    },
    "movielens_100k": {
        "data": {"name": "movielens_100k"},
        "features": {"modalities": ("image", "text")},
        "train": {"max_length": 100, "batch_size": 32, "group": 8, "epochs": 40, "patience": 8},
    },
    # 30 users: to see a third modality at work, not to compare accuracy.
    "situnes": {
        "data": {"name": "situnes"},
        "tokenizer": {"archetypes": 1, "candidates": 256},
        "quantize": {"digits": 8, "codewords": 32},
        "model": {"width": 32, "layers": 1, "heads": 2, "digit_width": 8},
        "train": {
            "epochs": 30,
            "max_length": 100,
            "batch_size": 10,
            "group": 10,
            "patience": 10,
        },
    },
    "amazon_2014": {
        "data": {"name": "amazon_2014", "category": "Beauty"},
        "features": {"modalities": ("attributes", "text"), "whitening": 0.5},
        # Histories are short: what they tell of an archetype costs more targets than it brings
        # (BUILD_NOTES.md, tuning of HDNAG), and a step takes in more of them, at fewer places
        # ("The perceiver reads e"). Many rare items want wide refiners (the same place).
        "tokenizer": {
            "archetypes": 1,
            "hidden": 1024,
            "batch_size": 128,
            "positions": 8,
            "steps": 2000,
        },
        "model": {"dense": "free", "dropout": 0.5},
        "loss": {"products": "auto"},
        "train": {
            "epochs": 24,
            "max_length": 20,
            "buckets": (3, 5, 8, 12, 20),
            "group": 128,
            "lr": 3e-3,
            "weight_decay": 0.3,
            "evaluate_users": 0,
            "evaluate_every": 3,
        },
    },
    # Amazon's, in what does not depend on the data.
    "folder": {
        "data": {"name": "folder"},
        "tokenizer": {"archetypes": 1},
        "model": {"dense": "free", "dropout": 0.5},
        "loss": {"products": "auto"},
        "train": {"epochs": 24, "lr": 3e-3, "weight_decay": 0.3, "evaluate_every": 2},
    },
}


SECTIONS: Mapping[str, Callable[..., Any]] = {
    "tokenizer": PmatConfig,
    "quantize": QuantizeConfig,
    "model": GeneratorConfig,
    "loss": LossConfig,
    "decode": DecodeConfig,
    "profile": ProfileConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_config`."""
    return make_config(arg, PRESETS, "hdnag", SECTIONS)
