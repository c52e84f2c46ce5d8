"""GRU4Rec with full-softmax cross-entropy.

    python -m semid_jax.launch --config=configs/baselines/gru4rec.py:amazon_2014,category=Beauty

Presets: `amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the
synthetic world, to see it run). `--config.model.features=True` gives it the features that semantic
IDs are made of.
"""

from ml_collections import ConfigDict

from semid_jax.models.gru4rec import Gru4RecConfig
from semid_jax.presets import Preset, make_config

PRESETS: dict[str, Preset] = {
    "amazon_2014": {
        "data": {"name": "amazon_2014", "category": "Beauty"},
        "features": {"modalities": ("attributes", "text")},
        "train": {
            "epochs": 100,
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
        "model": {"dropout": 0.2},
        "train": {"max_length": 200, "batch_size": 32, "group": 8, "epochs": 60, "lr": 1e-3},
    },
    "tiny": {
        "data": {"name": "synthetic"},
        "synthetic": {"users": 300, "items": 200, "topics": 6},
        "model": {"width": 32},
        "train": {"epochs": 2, "batch_size": 32, "group": 8},
    },
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_config`."""
    return make_config(arg, PRESETS, "gru4rec", {"model": Gru4RecConfig})
