"""SASRec with full-softmax cross-entropy, the baseline to beat.

    python -m semid_jax.launch --config=configs/baselines/sasrec.py:amazon_2014,category=Beauty

Presets: `amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the
synthetic world, to see it run). `--config.model.features=True` gives it the features that semantic
IDs are made of.
"""

from ml_collections import ConfigDict

from semid_jax.decode.config import ListConfig
from semid_jax.models.sasrec import SasRecConfig
from semid_jax.presets import Preset, make_baseline

OWN: dict[str, Preset] = {
    "amazon_2014": {"train": {"lr": 3e-3, "weight_decay": 0.3}},
    "movielens_1m": {
        "model": {"dropout": 0.2},
        "train": {"epochs": 50, "lr": 3e-3, "weight_decay": 0.3},
    },
    "tiny": {"model": {"width": 32, "layers": 1, "heads": 2, "dropout": 0.2}},
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_baseline`."""
    return make_baseline(arg, "sasrec", {"model": SasRecConfig, "decode": ListConfig}, OWN)
