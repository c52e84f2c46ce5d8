"""Ablations of PMAT, one switch each, by validation.

python -m semid_jax.study --config=configs/studies/pmat_ablation.py                  # synthetic
python -m semid_jax.study --config=configs/studies/pmat_ablation.py:movielens_1m

What an update does needs no training of its own: every run of record has old codes, updated ones
and a full re-encode side by side (pmat.updated_ndcg@10_…), and the gain and the churn of updates by
budget (pmat.tradeoff) and by margin (pmat.margins).
"""

from ml_collections import ConfigDict

from semid_jax.types import InputError

Settings = dict[str, object]
# PMAT as it is best on validation of each data set (BUILD_NOTES.md, "PMAT, measured").
PMAT: dict[str, Settings] = {
    "synthetic": {
        "tokenizer.archetypes": 8,
        "quantize.digits": 24,
        "quantize.shared": 8,
        "model.belief": True,
        "model.likeness": 0.5,
        "model.popularity": True,
    },
    "movielens_1m": {"tokenizer.archetypes": 8, "train.group": 8, "quantize.shared": 8},
}
FADING: Settings = {"model.belief": False, "model.likeness": 2.0}
BELIEF: Settings = {"model.belief": True, "model.likeness": 0.5}
OWN: Settings = {"quantize.digits": 16, "quantize.shared": 0}
SHORT: Settings = {"quantize.digits": 8, "quantize.shared": 0}
STATIC: Settings = {"tokenizer.archetypes": 1, **FADING, **OWN, "model.popularity": False}
# The better of two static tokenizers in the synthetic world.
PLAIN: Settings = {**STATIC, "model.dropout": 0.2, "train.weight_decay": 0.05}
# What only one of the two settings can be without, or has another way.
OF_PRESET: dict[str, dict[str, Settings]] = {
    "synthetic": {
        "no belief": FADING,
        "no popularity": {"model.popularity": False},
        "static tokenizer": PLAIN,
        "static tokenizer and no pooled loss": {**PLAIN, "tokenizer.pooled": 0},
    },
    "movielens_1m": {"belief": BELIEF},
}
CHANGES: dict[str, Settings] = {
    "static tokenizer": STATIC,
    "no shared digits": OWN,
    # Short IDs: what an archetype's view of an item is for, if anything.
    "8 digits": SHORT,
    "8 digits and A = 1": {**SHORT, "tokenizer.archetypes": 1},
    **{f"A = {a}": {"tokenizer.archetypes": a} for a in (1, 2, 4, 16)},
    "uniform weights": {"tokenizer.uniform": True},
    "no interest gate": {"tokenizer.gated": False},
    "no consistency": {"tokenizer.consistency": 0},
    "no pooled loss": {"tokenizer.pooled": 0},
    "own vectors": {"tokenizer.own": 1},
    "contexts": {"tokenizer.context": 64},
    "no pooled loss and A = 1": {"tokenizer.pooled": 0, "tokenizer.archetypes": 1},
    **{f"W = {w}": {"tokenizer.window": w} for w in (5, 20)},
    "always the nearest archetype": {"tokenizer.hold": 1.0},
    "drift threshold at 90 %": {"tokenizer.quantile": 0.9},
}
# At most a quarter of an hour a row on two cores.
SHORTER = {"movielens_1m": " --config.train.epochs=6 --config.train.max_length=100"}


def get_config(preset: str = "synthetic") -> ConfigDict:
    """The study of a preset of configs/hdnag.py: synthetic or movielens_1m."""
    preset = preset or "synthetic"
    if preset not in PMAT:
        raise InputError(f"--config=…:{preset}: unknown study; known are {', '.join(PMAT)}")
    rows = {"PMAT": {}, **CHANGES, **OF_PRESET[preset]}
    arguments = {
        name: " ".join(f"--config.{key}={value}" for key, value in settings.items())
        for name, settings in ((name, {**PMAT[preset], **own}) for name, own in rows.items())
    }
    base = f"--config=configs/hdnag.py:{preset}{SHORTER.get(preset, '')}"
    return ConfigDict({"base": base, "rows": tuple(arguments.items())})
