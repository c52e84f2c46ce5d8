"""Ablations of PMAT, one switch each, by validation.

python -m semid_jax.study --config=configs/studies/pmat_ablation.py                  # synthetic
python -m semid_jax.study --config=configs/studies/pmat_ablation.py:movielens_1m

Old codes instead of updated ones, and a full re-encode instead of an incremental update, need no
training of their own: every run of record has the three side by side (pmat.updated_ndcg@10_…), and
budgets against churn (pmat.tradeoff).
"""

from ml_collections import ConfigDict

STATIC = (
    "--config.tokenizer.archetypes=1 --config.quantize.digits=16 --config.quantize.shared=0 "
    "--config.model.belief=False"
)
ROWS = {
    "PMAT": "--config.tokenizer.archetypes=8",
    # The interest is a fading mean then, with the weight that it starts with everywhere else.
    "static tokenizer": f"{STATIC} --config.model.likeness=2.0",
    "no belief": "--config.tokenizer.archetypes=8 --config.model.belief=False "
    "--config.model.likeness=2.0",
    "no shared digits": "--config.tokenizer.archetypes=8 --config.quantize.shared=0 "
    "--config.quantize.digits=16",
    "no popularity": "--config.tokenizer.archetypes=8 --config.model.popularity=False",
    **{f"A = {a}": f"--config.tokenizer.archetypes={a}" for a in (1, 2, 4, 16)},
    "uniform weights": "--config.tokenizer.archetypes=8 --config.tokenizer.uniform=True",
    "no interest gate": "--config.tokenizer.archetypes=8 --config.tokenizer.gated=False",
    "no consistency": "--config.tokenizer.archetypes=8 --config.tokenizer.consistency=0",
    **{
        f"W = {w}": f"--config.tokenizer.archetypes=8 --config.tokenizer.window={w}"
        for w in (5, 20)
    },
    "drift threshold at 90 %": "--config.tokenizer.archetypes=8 --config.tokenizer.quantile=0.9",
    "margin 0": "--config.tokenizer.archetypes=8 --config.tokenizer.margin=0",
    "margin .3": "--config.tokenizer.archetypes=8 --config.tokenizer.margin=0.3",
    "budget 1": "--config.tokenizer.archetypes=8 --config.tokenizer.budget=1",
}
# At most a quarter of an hour a row on two cores.
SHORTER = {"movielens_1m": " --config.train.epochs=12 --config.train.max_length=100"}


def get_config(preset: str = "") -> ConfigDict:
    """The study of a preset of configs/hdnag.py."""
    base = f"--config=configs/hdnag.py:{preset or 'synthetic'}{SHORTER.get(preset, '')}"
    return ConfigDict({"base": base, "rows": tuple(ROWS.items())})
