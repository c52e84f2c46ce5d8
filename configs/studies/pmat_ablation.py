"""Ablations of PMAT, one switch each, by validation.

python -m semid_jax.study --config=configs/studies/pmat_ablation.py                  # synthetic
python -m semid_jax.study --config=configs/studies/pmat_ablation.py:movielens_1m

Old codes instead of updated ones, and a full re-encode instead of an incremental update, need no
training of their own: every run of record has the three side by side (pmat.updated_ndcg@10_…), and
budgets against churn (pmat.tradeoff).
"""

from ml_collections import ConfigDict

PMAT: dict[str, object] = {
    "tokenizer.archetypes": 8,
    "quantize.digits": 24,
    "quantize.shared": 8,
    "model.belief": True,
    "model.likeness": 0.5,
    "model.popularity": True,
}
NO_BELIEF: dict[str, object] = {"model.belief": False, "model.likeness": 2.0}
NO_SHARED: dict[str, object] = {"quantize.digits": 16, "quantize.shared": 0}
CHANGES: dict[str, dict[str, object]] = {
    "PMAT": {},
    "static tokenizer": {
        "tokenizer.archetypes": 1,
        **NO_BELIEF,
        **NO_SHARED,
        "model.popularity": False,
    },
    "no belief": NO_BELIEF,
    "no shared digits": NO_SHARED,
    "no popularity": {"model.popularity": False},
    **{f"A = {a}": {"tokenizer.archetypes": a} for a in (1, 2, 4, 16)},
    "uniform weights": {"tokenizer.uniform": True},
    "no interest gate": {"tokenizer.gated": False},
    "no consistency": {"tokenizer.consistency": 0},
    **{f"W = {w}": {"tokenizer.window": w} for w in (5, 20)},
    "drift threshold at 90 %": {"tokenizer.quantile": 0.9},
    "margin 0": {"tokenizer.margin": 0},
    "margin .3": {"tokenizer.margin": 0.3},
    "budget 1": {"tokenizer.budget": 1},
}
ROWS = {
    name: " ".join(f"--config.{key}={value}" for key, value in {**PMAT, **changes}.items())
    for name, changes in CHANGES.items()
}
# At most a quarter of an hour a row on two cores.
SHORTER = {"movielens_1m": " --config.train.epochs=12 --config.train.max_length=100"}


def get_config(preset: str = "") -> ConfigDict:
    """The study of a preset of configs/hdnag.py."""
    base = f"--config=configs/hdnag.py:{preset or 'synthetic'}{SHORTER.get(preset, '')}"
    return ConfigDict({"base": base, "rows": tuple(ROWS.items())})
