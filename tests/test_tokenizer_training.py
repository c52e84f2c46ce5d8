"""PMAT's training: the same on two devices as on one, and it learns."""

import dataclasses

import jax
import numpy as np

from semid_jax.data.sequences import train_items
from semid_jax.data.synthetic import SyntheticConfig, generate
from semid_jax.features.config import FeaturesConfig
from semid_jax.features.normalise import fit_transform
from semid_jax.models.pmat import PmatConfig
from semid_jax.train.tokenizer import fit_pmat

CONFIG = PmatConfig(width=16, steps=6, batch_size=8, positions=4, candidates=64)


def test_two_devices_train_as_one():
    raw = generate(SyntheticConfig(users=60, items=80, topics=4))
    features, _ = fit_transform(raw.catalogue, train_items(raw.interactions), FeaturesConfig())
    one, two = (
        fit_pmat(features, raw.interactions, CONFIG, 30, 0, jax.devices()[:n]) for n in (1, 2)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), one, two)
    # Devices that the batch cannot be spread over, all of it on each.
    single = dataclasses.replace(CONFIG, batch_size=1)
    few = fit_pmat(features, raw.interactions, single, 30, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(few))
