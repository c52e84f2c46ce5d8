"""Pctx: several IDs of an item, the history says which is meant.

    python -m semid_jax.launch --config=configs/tokenizers/pctx.py:hdnag:movielens_1m
    python -m semid_jax.launch --config=configs/tokenizers/pctx.py:gpt2:movielens_1m

`hdnag`: its fused embedding, our quantiser and HDNAG; `gpt2`: its native codes, one after another.
Presets are those of configs/hdnag.py and configs/baselines/gpt2.py.
"""

from pathlib import Path

from ml_collections import ConfigDict

from semid_jax.tokenizers.presets import of_tokenizer


def get_config(arg: str = "") -> ConfigDict:
    """The configuration of a generator's preset, with this tokenizer."""
    return of_tokenizer("pctx", arg, Path(__file__).parents[1])
