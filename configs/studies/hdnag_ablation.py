"""Ablations of HDNAG, one switch each, by validation, with half the epochs of a run of record.

python -m semid_jax.study --config=configs/studies/hdnag_ablation.py                  # Beauty
python -m semid_jax.study --config=configs/studies/hdnag_ablation.py:Sports_and_Outdoors
"""

from ml_collections import ConfigDict

ROWS = {
    "HDNAG": "",
    "no S2": "--config.model.dense=none",
    "S2 without free vectors": "--config.model.dense=content",
    "no term for repeats": "--config.model.repeats=False",
    "no likeness": "--config.model.likeness=0.0",
    "no hierarchy": "--config.quantize.cells=1 --config.loss.coarse=0 --config.loss.alignment=0",
    "no condition": "--config.model.condition_rank=0",
    "no alignment": "--config.loss.alignment=0",
    "no losses of codes": "--config.loss.coarse=0 --config.loss.fine=0",
    "no item-level loss on S1": "--config.loss.item=0",
    "no item-level loss": "--config.loss.item=0 --config.model.dense=none",
    # What is trained is then the likelihood of the codes: each digit counts like the coarse code.
    "normalised score": "--config.model.normalised=True --config.model.dense=none "
    "--config.loss.coarse=1 --config.loss.fine=16 --config.loss.item=0 --config.loss.alignment=0 "
    "--config.loss.validity=0",
    "4096 sampled items": "--config.loss.candidates=4096",
    "residual digits": "--config.quantize.fine=residual",
    "L = 8": "--config.quantize.digits=8",
    # 24 digits are parts of equal length of 120, not of 128.
    "L = 24": "--config.quantize.digits=24 --config.tokenizer.width=120",
    "L = 32": "--config.quantize.digits=32",
}


def get_config(category: str = "") -> ConfigDict:
    """The study of a category of amazon_2014."""
    base = f"--config=configs/hdnag.py:amazon_2014,category={category or 'Beauty'}"
    base += " --config.train.epochs=12"  # seventeen rows then take two to three hours on two cores
    return ConfigDict({"base": base, "rows": tuple(ROWS.items())})
