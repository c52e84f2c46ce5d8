"""One residual quantiser per modality, codes side by side: MQL4GRec's IDs without its pre-training.

Zhai et al., "Multimodal Quantitative Language for Generative Recommendation", ICLR 2025, 3.1. A
modality has three levels by default, as RQ-VAE has, and layers of 512 to 64; the paper has four
levels, and layers of 2,048 to 64. Left out: pre-training over other domains, Sinkhorn on the last
level and moving collided items to their next nearest codes (a last digit tells them apart, as for
all generators of codes here), and the generator's alignment tasks.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from semid_jax.quantize.codebook import Codebook
from semid_jax.tokenizers.fused import Fused
from semid_jax.tokenizers.rqvae import RqvaeConfig, fit_on
from semid_jax.types import ItemFeatures


def fit(features: ItemFeatures, train_items: np.ndarray, config: RqvaeConfig, seed: int) -> Fused:
    """Trains an RQ-VAE per modality.

    Args:
      features: normalised.
      train_items: bool[N + 1], items that may be seen.
      config: of each RQ-VAE.
      seed: of everything random here.

    Returns:
      Latents side by side, and the levels of all modalities as one codebook: modality by modality,
      each level's codewords zero outside their own modality's place.
    """
    parts = [
        fit_on(features.x[name], train_items & features.present[name], config, seed, name)
        for name in features.modalities
    ]
    width = sum(part.points.shape[1] for part in parts)
    levels, at = [], 0
    for part in parts:
        own = np.concatenate([np.asarray(part.book.coarse)[None], np.asarray(part.book.fine)])
        after = width - at - own.shape[2]
        levels.append(np.pad(own, ((0, 0), (0, 0), (at, after))))
        at += own.shape[2]
    most = max(level.shape[1] for level in levels)  # fewer where few items have a modality
    filled = [np.pad(w, ((0, 0), (0, most - w.shape[1]), (0, 0)), mode="edge") for w in levels]
    words = jnp.asarray(np.concatenate(filled))
    points = np.concatenate([part.points for part in parts], axis=1)
    book = Codebook(words[0], jnp.eye(width), words[1:], kind="residual", absolute=False)
    return Fused(points, book)
