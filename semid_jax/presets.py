"""Configurations from presets: what every file in configs/ is made of."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.data.config import DataConfig
from semid_jax.data.synthetic import SyntheticConfig
from semid_jax.features.config import FeaturesConfig
from semid_jax.report.config import ReportConfig
from semid_jax.train.optimiser import TrainConfig
from semid_jax.types import InputError

Preset = Mapping[str, Mapping[str, Any]]
SHARED: Mapping[str, Callable[..., Any]] = {
    "data": DataConfig,
    "synthetic": SyntheticConfig,
    "features": FeaturesConfig,
    "train": TrainConfig,
    "report": ReportConfig,
}

# What every sequence baseline shares; a file in configs/baselines adds its model's own values.
SEQUENCE_BASELINES: Mapping[str, Preset] = {
    "amazon_2014": {
        "data": {"name": "amazon_2014", "category": "Beauty"},
        "features": {"modalities": ("attributes", "text")},
        "train": {
            "epochs": 45,
            "patience": 10,
            "lr": 1e-3,
            "buckets": (3, 5, 8, 12, 20),
            "evaluate_users": 0,
            "evaluate_every": 2,
        },
    },
    "movielens_1m": {
        "data": {"name": "movielens_1m"},
        "features": {"modalities": ("image", "text")},
        "train": {"max_length": 200, "batch_size": 32, "group": 8, "epochs": 60, "lr": 1e-3},
    },
    "tiny": {
        "data": {"name": "synthetic"},
        "synthetic": {"n_users": 300, "n_items": 200, "topics": 6},
        "train": {"epochs": 2, "batch_size": 32, "group": 8},
    },
}


def make_baseline(
    arg: str,
    recommender: str,
    sections: Mapping[str, Callable[..., Any]],
    own: Mapping[str, Preset],
) -> ConfigDict:
    """The configuration of a sequence baseline: SEQUENCE_BASELINES and its own values over them.

    `folder` is a preset as well: Amazon's, for a data set of one's own.

    Args:
      arg: see `make_config`.
      recommender: a key of stages.RECOMMENDERS.
      sections: name -> dataclass, of the sections that are this recommender's own.
      own: preset -> section -> values that differ from the shared ones.

    Raises:
      InputError: unknown preset or field.
    """
    presets: dict[str, Preset] = {
        name: {
            section: {**shared.get(section, {}), **own.get(name, {}).get(section, {})}
            for section in {**shared, **own.get(name, {})}
        }
        for name, shared in SEQUENCE_BASELINES.items()
    }
    # Amazon's, in what does not depend on the data.
    general = {name: dict(values) for name, values in presets["amazon_2014"].items()}
    general["data"] = {"name": "folder"}
    general["features"].pop("modalities")
    general["train"].pop("buckets")
    return make_config(arg, {**presets, "folder": general}, recommender, sections)


def make_config(
    arg: str,
    presets: Mapping[str, Preset],
    recommender: str,
    sections: Mapping[str, Callable[..., Any]],
) -> ConfigDict:
    """The configuration that `arg` names.

    Args:
      arg: a preset, the first one if empty; then `field=value` of the data section, comma
        separated.
      presets: name -> section -> values that differ from the defaults.
      recommender: a key of stages.RECOMMENDERS.
      sections: name -> dataclass, of the sections that are this recommender's own.

    Raises:
      InputError: unknown preset or field.
    """
    name, *settings = (arg or next(iter(presets))).split(",")
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise InputError(f"--config=…:{name}: unknown preset{hint} known are {', '.join(presets)}")
    chosen = {section: dict(values) for section, values in presets[name].items()}
    fields = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in fields:
            raise InputError(
                f"--config=…:{arg}: {setting!r} is not field=value of {', '.join(sorted(fields))}"
            )
        kind = int if isinstance(fields[field], int) else str
        try:
            chosen.setdefault("data", {})[field] = kind(value)
        except ValueError as error:
            raise InputError(
                f"--config=…:{arg}: {field}={value} is no {kind.__name__}; give one"
            ) from error
    made = {
        section: ConfigDict(dataclasses.asdict(kind(**chosen.get(section, {}))))
        for section, kind in {**SHARED, **sections}.items()
    }
    return ConfigDict({"recommender": recommender, "seed": 0, "validate_only": False, **made})
