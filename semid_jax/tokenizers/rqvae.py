"""RQ-VAE: an autoencoder whose latent is quantised level by level.

Lee et al., "Autoregressive Image Generation using Residual Quantization", CVPR 2022; as semantic
IDs: Rajput et al., "Recommender Systems with Generative Retrieval" (TIGER), NeurIPS 2023, 3.1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.quantize import kmeans, opq
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import check_codewords
from semid_jax.tokenizers.fused import Fused, draw_items, side_by_side, train
from semid_jax.types import ItemFeatures


@dataclasses.dataclass(frozen=True)
class RqvaeConfig:
    """RQ-VAE, sizes as in TIGER.

    Attributes:
      hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
      latent: width of what is quantised.
      levels: codes of an item.
      codewords: K of each level.
      commitment: beta, how hard the latent is drawn to its codewords.
      steps: of the optimiser.
      batch_size: items.
      lr: at the peak.
    """

    hidden: tuple[int, ...] = (512, 256, 128)
    latent: int = 32
    levels: int = 3
    codewords: int = 256
    commitment: float = 0.25
    steps: int = 3000
    batch_size: int = 1024
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses codes that do not fit a byte."""
        check_codewords("rqvae", self.codewords)


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[..., d] to float[..., widths[-1]]."""
        for number, width in enumerate(self.widths):
            x = nn.Dense(width)(x if number == 0 else jax.nn.relu(x))
        return x


class Rqvae(nn.Module):
    """Encoder, decoder and codebooks."""

    config: RqvaeConfig
    width: int

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.encoder = Mlp((*c.hidden, c.latent))
        self.decoder = Mlp((*c.hidden[::-1], self.width))
        shape = (c.levels, c.codewords, c.latent)
        self.codebooks = self.param("codebooks", nn.initializers.normal(0.1), shape)

    def encode(self, x: jax.Array) -> jax.Array:
        """float[n, d] to float[n, latent]."""
        return self.encoder(x)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The reconstruction float[n, d], and the losses of quantisation float[n]."""
        z = self.encode(x)
        quantised, loss = residual_quantise(self.codebooks, z, self.config.commitment)
        return self.decoder(z + jax.lax.stop_gradient(quantised - z)), loss


def residual_quantise(
    codebooks: jax.Array, z: jax.Array, commitment: float
) -> tuple[jax.Array, jax.Array]:
    """Each level quantises what those before it leave over.

    Args:
      codebooks: float32[L, K, d].
      z: float32[n, d].
      commitment: beta.

    Returns:
      float32[n, d], the sum of the codewords, and float32[n], sum over levels of
      |sg(r) - e|^2 + beta |r - sg(e)|^2.
    """
    hold = jax.lax.stop_gradient

    def level(carry: tuple[jax.Array, jax.Array], words: jax.Array) -> Any:
        left, loss = carry
        distance = jnp.sum(words**2, -1) - 2.0 * left @ words.T
        word = words[jnp.argmin(hold(distance), axis=-1)]
        loss += jnp.sum((hold(left) - word) ** 2, -1)
        loss += commitment * jnp.sum((left - hold(word)) ** 2, -1)
        # What is left over is the encoder's: codewords learn from their own level alone.
        return (left - hold(word), loss), word

    start = z, jnp.zeros(len(z))
    (_, loss), words = jax.lax.scan(level, start, codebooks)
    return jnp.sum(words, axis=0), loss


def fit(features: ItemFeatures, train_items: np.ndarray, config: RqvaeConfig, seed: int) -> Fused:
    """Trains an RQ-VAE on all modalities side by side.

    Args:
      features: normalised.
      train_items: bool[N + 1], items that may be seen.
      config: settings.
      seed: of everything random here.

    Returns:
      Latents, and the levels as a codebook of kind "residual".
    """
    return fit_on(side_by_side(features), train_items, config, seed, "RQ-VAE")


def fit_on(
    x: np.ndarray, train_items: np.ndarray, config: RqvaeConfig, seed: int, name: str
) -> Fused:
    """Trains an RQ-VAE on vectors float32[N + 1, d] of items."""
    items = np.flatnonzero(train_items)
    config = dataclasses.replace(config, codewords=min(config.codewords, len(items)))
    module = Rqvae(config, x.shape[1])
    params = jax.jit(module.init)(jax.random.key(seed), jnp.asarray(x[1:3]))
    encode = jax.jit(lambda params, x: module.apply(params, x, method=Rqvae.encode))
    # Codebooks start from residual k-means on the latents: random ones are mostly never chosen.
    start = np.asarray(encode(params, x[items]))
    sizes = config.levels, config.codewords
    codebooks = opq.fit_levels(start, *sizes, 10, seed, fit=kmeans.fit_plain)  # training moves them
    inner = {**params["params"], "codebooks": jnp.asarray(codebooks)}

    def loss(params: Any, data: jax.Array, rows: jax.Array, key: jax.Array) -> Any:
        del key
        rebuilt, quantisation = module.apply(params, data[rows])
        error = jnp.mean(jnp.sum((rebuilt - data[rows]) ** 2, axis=-1))
        quantisation = jnp.mean(quantisation)
        return error + quantisation, {"reconstruction": error, "quantisation": quantisation}

    draw = draw_items(items, min(config.batch_size, len(items)))
    data = jnp.asarray(x)
    params = train(loss, {"params": inner}, data, draw, config.steps, config.lr, seed, name)
    points = np.array(encode(params, data))
    points[0] = 0
    words = params["params"]["codebooks"]
    eye = jnp.eye(config.latent)
    return Fused(points, Codebook(words[0], eye, words[1:], kind="residual", absolute=False))
