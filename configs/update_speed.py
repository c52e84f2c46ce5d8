"""How fast semantic IDs follow a user: updates step by step against encoding all over again.

    python -m semid_jax.launch --config=configs/update_speed.py          # 100,000 items
    python -m semid_jax.launch --config=configs/update_speed.py:tiny

The tokenizer is trained briefly: times do not depend on what it has learned. The table goes to
WORKDIR/results/update_speed.json; put it into results/update_speed/<machine>.json to keep it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.benchmarks.update_speed import UpdateSpeedConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.presets import Preset, make_config
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

PRESETS: dict[str, Preset] = {
    "synthetic": {
        "data": {"name": "synthetic"},
        "synthetic": {"n_users": 600, "n_items": 100_000},
        "tokenizer": {"steps": 60},
        "quantize": {"iterations": 5, "rotation_iterations": 2},
    },
    "tiny": {
        "data": {"name": "synthetic"},
        "synthetic": {"n_users": 120, "n_items": 200, "topics": 6},
        "tokenizer": {"steps": 20, "width": 32, "archetypes": 4, "candidates": 128},
        "quantize": {"digits": 8, "codewords": 32, "iterations": 3, "rotation_iterations": 1},
        "benchmark": {"batches": (1, 4), "seconds": 0.1},
    },
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "tokenizer": PmatConfig,
    "quantize": QuantizeConfig,
    "benchmark": UpdateSpeedConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_config`."""
    return make_config(arg, PRESETS, "update_speed", SECTIONS)
