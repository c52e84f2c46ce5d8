"""HDNAG on PMAT's semantic IDs.

    bash launch/local.sh --config=configs/hdnag.py
    python -m semid_jax.launch --config=configs/hdnag.py:movielens_1m

Presets: none (the synthetic world: it checks the tokenizer and says nothing about accuracy in the
world), `tiny` (the same, minutes smaller), `movielens_1m`, `movielens_100k`,
`amazon_2014,category=Beauty`, `folder,source_dir=PATH`. What each printed when it was last run,
how long it took and on what machine stands in README.md, made from results/.
"""

import dataclasses
import difflib
from typing import Any

from ml_collections import ConfigDict

from semid_jax.data.config import DataConfig
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.decode.config import DecodeConfig
from semid_jax.features.config import FeaturesConfig
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.profiling import ProfileConfig
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.report.config import ReportConfig
from semid_jax.train.optimiser import TrainConfig
from semid_jax.types import InputError

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "synthetic": {
        "data": {"name": "synthetic"},
        "train": {"epochs": 8, "batch_size": 64, "group": 8},
        "tokenizer": {"steps": 600},
        "decode": {"probes": 7},
    },
    "tiny": {
        "data": {"name": "synthetic"},
        "synthetic": {"users": 300, "items": 200, "topics": 6},
        "tokenizer": {"steps": 40, "width": 32, "hidden": 32, "archetypes": 4, "candidates": 128},
        "quantize": {"digits": 8, "codewords": 32, "iterations": 5, "rotation_iterations": 2},
        "model": {"width": 32, "layers": 1, "heads": 2, "digit_width": 8},
        "train": {"epochs": 2, "batch_size": 32, "group": 8, "checkpoint_steps": 5},
        "decode": {"probes": 4, "k": 20},
    },
    "movielens_1m": {
        "data": {"name": "movielens_1m"},
        "features": {"modalities": ("image", "text")},
        "train": {"max_length": 200, "batch_size": 32, "group": 8, "epochs": 16},
        "loss": {"candidates": 1024},
        "decode": {"probes": 10},
    },
    "movielens_100k": {
        "data": {"name": "movielens_100k"},
        "features": {"modalities": ("image", "text")},
        "train": {"max_length": 100, "batch_size": 32, "group": 8, "epochs": 40, "patience": 8},
        "decode": {"probes": 8},
    },
    "amazon_2014": {
        "data": {"name": "amazon_2014", "category": "Beauty"},
        "features": {"modalities": ("attributes", "text")},
        "train": {"epochs": 40},
        "decode": {"probes": 20},
    },
    "folder": {"data": {"name": "folder"}},
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration.

    Args:
      arg: a preset, then `field=value` of the data section, comma separated.

    Raises:
      InputError: unknown preset or field.
    """
    name, *settings = (arg or "synthetic").split(",")
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise InputError(f"--config=…:{name}: unknown preset{hint} known are {', '.join(PRESETS)}")
    preset = {section: dict(values) for section, values in PRESETS[name].items()}
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in fields:
            raise InputError(
                f"--config=…:{arg}: {setting!r} is not field=value of {', '.join(sorted(fields))}"
            )
        preset["data"][field] = value

    def section(name: str, kind: Any) -> ConfigDict:
        return ConfigDict(dataclasses.asdict(kind(**preset.get(name, {}))))

    return ConfigDict(
        {
            "seed": 0,
            "data": section("data", DataConfig),
            "synthetic": section("synthetic", SyntheticConfig),
            "features": section("features", FeaturesConfig),
            "tokenizer": section("tokenizer", PmatConfig),
            "quantize": section("quantize", QuantizeConfig),
            "model": section("model", GeneratorConfig),
            "loss": section("loss", LossConfig),
            "train": section("train", TrainConfig),
            "decode": section("decode", DecodeConfig),
            "report": section("report", ReportConfig),
            "profile": section("profile", ProfileConfig),
        }
    )
