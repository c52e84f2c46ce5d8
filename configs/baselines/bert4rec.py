"""BERT4Rec: the cloze task, full-softmax cross-entropy at masked places.

    python -m semid_jax.launch --config=configs/baselines/bert4rec.py:amazon_2014,category=Beauty

Presets: `amazon_2014` (category=Beauty or Sports_and_Outdoors), `movielens_1m`, `tiny` (the
synthetic world, to see it run). `--config.model.features=True` gives it the features that semantic
IDs are made of.
"""

from ml_collections import ConfigDict

from semid_jax.decode.config import ListConfig
from semid_jax.models.bert4rec import Bert4RecConfig
from semid_jax.presets import Preset, make_baseline

# One place in three bears loss: it takes more epochs than a model that predicts at every place.
OWN: dict[str, Preset] = {
    "amazon_2014": {"train": {"epochs": 80}},
    "tiny": {"model": {"width": 32, "layers": 1, "heads": 2}},
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_baseline`."""
    return make_baseline(arg, "bert4rec", {"model": Bert4RecConfig, "decode": ListConfig}, OWN)
