"""Tokenizers beside each other, a few minutes a row on two cores.

CONFIG=configs/studies/tokenizers.py
python -m semid_jax.study --config=$CONFIG:hdnag:movielens_1m --record=tokenizers_hdnag
python -m semid_jax.study --config=$CONFIG:behaviour:movielens_1m --record=tokenizers_behaviour
python -m semid_jax.study --config=$CONFIG:gpt2:movielens_1m --record=tokenizers_gpt2

`hdnag`: each one's fused embedding, our quantiser (same C, L, K) and HDNAG. `behaviour`: the same,
what is chosen together being one more modality for all of them. `gpt2`: its own codes, one after
another. Generators are trained for less long than in the main table and HDNAG against a
sample of the items, all rows alike: rows of a table may be compared, tables may not.
"""

from ml_collections import ConfigDict

from semid_jax.tokenizers.presets import WIDTHS
from semid_jax.types import InputError

OTHERS = {
    "RQ-VAE": "--config.fuse.method=rqvae",
    "MQL4GRec's": "--config.fuse.method=mql4grec",
    "FusID": "--config.fuse.method=fusid",
    "MMQ": "--config.fuse.method=mmq",
    "Pctx": "--config.fuse.method=pctx",
}
# In table (i) nothing of Pctx's vector is cut, see tokenizers/presets.py.
WIDE = f" --config.tokenizer.width={WIDTHS['pctx']}"
PERSONAL = "--config.tokenizer.archetypes=8 --config.quantize.shared=8"
# Windows that share an archetype: long ones are many positions, and a batch has few.
GROUPS = {"movielens_1m": " --config.train.group=8", "amazon_2014": ""}
# z can have the states that items are chosen in and, where they are chosen often, vectors of their
# own (BUILD_NOTES.md). Where behaviour is a modality it takes the place of both. FusID, the best of
# the others without them, has a row with contexts, which tells the fusion's share from theirs.
CONTEXT = " --config.tokenizer.context=64"
OWN = {
    ("hdnag", "movielens_1m"): " --config.tokenizer.own=1 --config.tokenizer.steps=2000" + CONTEXT,
    ("hdnag", "amazon_2014"): CONTEXT,
}
MODALITIES: dict[str, tuple[str, ...]] = {
    "movielens_1m": ("image", "text"),
    "amazon_2014": ("attributes", "text"),
}
HDNAG = "configs/hdnag.py"
CONFIGS = {"hdnag": HDNAG, "behaviour": HDNAG, "gpt2": "configs/baselines/gpt2.py"}
HDNAG_SHORTER = {
    "movielens_1m": (
        " --config.train.epochs=3 --config.train.max_length=50 --config.loss.candidates=1024"
    ),
    "amazon_2014": (
        " --config.train.epochs=8 --config.train.evaluate_every=2"
        " --config.train.evaluate_users=4000 --config.loss.candidates=2048"
    ),
}
SHORTER = {
    **{(made, name): own for made in ("hdnag", "behaviour") for name, own in HDNAG_SHORTER.items()},
    ("gpt2", "movielens_1m"): " --config.train.epochs=3 --config.model.heads=2",
    ("gpt2", "amazon_2014"): " --config.train.epochs=12",
}


def get_config(arg: str = "hdnag:movielens_1m") -> ConfigDict:
    """The study of a generator and one of its presets."""
    generator, _, preset = (arg or "hdnag:movielens_1m").partition(":")
    name = preset.split(",")[0]
    if (generator, name) not in SHORTER:
        known = ", ".join(":".join(pair) for pair in SHORTER)
        raise InputError(f"--config=…:{arg}: unknown study; known are {known}")
    base = f"--config={CONFIGS[generator]}:{preset}{SHORTER[generator, name]}"
    if generator == "gpt2":
        rows = {"residual k-means": "", **OTHERS}
    else:
        own = OWN.get((generator, name), "")
        others = OTHERS | {"Pctx": OTHERS["Pctx"] + WIDE}
        rows = {"PMAT": PERSONAL + GROUPS[name] + own, "PMAT with A = 1": own, **others}
    if generator == "hdnag":
        rows["FusID with contexts"] = OTHERS["FusID"] + CONTEXT
    alone = MODALITIES[name]
    if generator == "behaviour":
        together = f'--config.features.modalities="{("behaviour", *alone)}"'
        rows = {row: f"{settings} {together}" for row, settings in rows.items()}
        alone = ("behaviour",)
    rows |= {f"{m} alone": f"--config.features.modalities={m}" for m in alone}
    return ConfigDict({"base": base, "rows": tuple(rows.items())})
