"""All decoders on one axis: times, recall, floors, on a catalogue of a million items.

    python -m semid_jax.launch --config=configs/decode_speed.py          # an hour on two cores
    python -m semid_jax.launch --config=configs/decode_speed.py:quick    # ten minutes
    python -m semid_jax.launch --config=configs/decode_speed.py:movielens    # 90 minutes
    python -m semid_jax.launch --config=configs/decode_speed.py:movielens_quick    # 100,000 items
    python -m semid_jax.launch --config=configs/decode_speed.py:ten_million    # S1, 20 GB
    python -m semid_jax.launch --config=configs/decode_speed.py:beauty   # as it is, half an hour
    python -m semid_jax.launch --config=configs/decode_speed.py --config.data.expand=100000

Beauty, or MovieLens-1M, with new items drawn around the real ones (`semid_jax/data/expansion.py`),
or Beauty as it is; the generator is trained on these histories first. The table goes to
WORKDIR/results/decode_speed.json; put it into results/decode_speed/<machine>.json to keep it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from semid_jax.benchmarks.decode_speed import DecodeSpeedConfig
from semid_jax.decode.config import DecodeConfig
from semid_jax.models.hdnag import GeneratorConfig
from semid_jax.models.hdnag_losses import LossConfig
from semid_jax.models.pmat import PmatConfig
from semid_jax.presets import Preset, make_config
from semid_jax.quantize.config import QuantizeConfig
from semid_jax.tokenizers.registry import SECTIONS as TOKENIZERS

MILLION: Preset = {
    "data": {"name": "amazon_2014", "category": "Beauty", "expand": 1_000_000},
    "tokenizer": {"archetypes": 1},
    # Searches are as wide as the longest lists: even ones waste less.
    "quantize": {"balance": 1.25},
    "model": {"dense": "content", "dropout": 0.5},
    "loss": {"products": "auto"},
    "train": {
        "epochs": 12,
        "max_length": 20,
        "group": 128,
        "buckets": (3, 5, 8, 12, 20),
        "lr": 3e-3,
        "weight_decay": 0.3,
        "evaluate_users": 2000,
        "evaluate_every": 3,
    },
    # A family has some 80 items: a leaf of 32 halves the leaves to judge (BUILD_NOTES.md).
    "decode": {"k": 10, "leaf_items": 32},
    # Of a million items some 300 share three codes of 256 values, a fourth tells only 256 apart.
    "benchmark": {"lengths": (5, 0)},
}
# Of minutes: the beam is the fastest that lists of ten can have.
SHORT: dict[str, Any] = {
    "users": 1024,
    "seconds": 1.0,
    "lengths": (4,),
    "epochs": (1,),
    "beams": (10,),
}
# Histories are five times as long: fewer epochs, fewer items to a step, no 17 codes of each item.
MOVIELENS: Preset = {
    **MILLION,
    "data": {"name": "movielens_1m", "expand": 1_000_000},
    "train": {
        **MILLION["train"],
        "epochs": 3,
        "evaluate_users": 1000,
        "max_length": 100,
        "batch_size": 32,
        "group": 32,
        "buckets": (50,),
    },
    "loss": {**MILLION["loss"], "candidates": 4096},
    "benchmark": {**SHORT, "lengths": (5,)},
}
PRESETS: dict[str, Preset] = {
    "million": MILLION,
    "movielens": MOVIELENS,
    # What fits on a machine of 24 GB: z of half the width, no S2, whose calibration asks all users
    # for everything, decoders that read codes alone, and batches whose probes are few gigabytes.
    "ten_million": {
        **MILLION,
        "data": {**MILLION["data"], "expand": 10_000_000},
        "tokenizer": {"archetypes": 1, "width": 64},
        "model": {**MILLION["model"], "dense": "none"},
        "train": {**MILLION["train"], "epochs": 3, "evaluate_users": 500, "buckets": (8, 20)},
        "loss": {**MILLION["loss"], "candidates": 4096},
        "benchmark": {
            **SHORT,
            "methods": ("exact", "inverted", "leaves"),
            "batches": (1, 64),
            "users": 512,
            "lengths": (6,),  # 614 items share four codes
        },
    },
    # The real catalogue, trained as in configs/studies/tokenizers.py: accuracies mean something.
    "beauty": {
        **MILLION,
        "data": {"name": "amazon_2014", "category": "Beauty"},
        "features": {"modalities": ("attributes", "text"), "whitening": 0.5},
        "tokenizer": {
            "archetypes": 1,
            "batch_size": 128,
            "hidden": 1024,
            "positions": 8,
            "steps": 2000,
        },
        "loss": {**MILLION["loss"], "candidates": 2048},
        "train": {**MILLION["train"], "epochs": 8, "evaluate_users": 4000, "evaluate_every": 2},
        "decode": {"k": 10},
        "benchmark": {"users": 0, "lengths": (4, 0), "epochs": (12, 2)},
    },
    "quick": {
        **MILLION,
        "data": {**MILLION["data"], "expand": 100_000},
        # Fewer lengths to compile and fewer items to a step: a third of the time was spent on them.
        "train": {**MILLION["train"], "epochs": 2, "evaluate_every": 2, "buckets": (8, 20)},
        "loss": {**MILLION["loss"], "candidates": 4096},
        "decode": {"k": 10},
        "benchmark": SHORT,
    },
    "movielens_quick": {
        **MOVIELENS,
        "data": {**MOVIELENS["data"], "expand": 100_000},
        "train": {**MOVIELENS["train"], "epochs": 2, "evaluate_every": 2},
        "decode": {"k": 10},
        "benchmark": SHORT,
    },
    "tiny": {
        "data": {"name": "synthetic", "expand": 300},
        "synthetic": {"n_users": 120, "n_items": 200, "topics": 6},
        "tokenizer": {"archetypes": 1, "steps": 20, "width": 32, "candidates": 128},
        "quantize": {"digits": 4, "codewords": 16, "iterations": 3, "rotation_iterations": 1},
        "model": {"width": 32, "layers": 1, "heads": 2, "digit_width": 8, "dense": "content"},
        "train": {"epochs": 1, "batch_size": 32, "group": 8, "buckets": (50,)},
        "decode": {"k": 10, "rescored": 50},
        "benchmark": {
            "batches": (1, 4),
            "users": 40,
            "seconds": 0.05,
            "lengths": (4,),
            "epochs": (1,),
            "beams": (10,),
        },
    },
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "tokenizer": PmatConfig,
    "quantize": QuantizeConfig,
    "model": GeneratorConfig,
    "loss": LossConfig,
    "decode": DecodeConfig,
    "benchmark": DecodeSpeedConfig,
    **TOKENIZERS,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a preset, see `make_config`."""
    return make_config(arg, PRESETS, "decode_speed", SECTIONS)
