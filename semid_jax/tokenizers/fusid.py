"""FusID: modalities fused into sub-embeddings that co-occurrence pulls together.

"FusID: Modality-Fused Semantic IDs for Generative Music Recommendation" (2601.08764). One
perceptron turns all modalities side by side into n sub-embeddings; items that occur together are
near each other, and VICReg's terms (Bardes et al., ICLR 2022) keep every sub-embedding spread and
different ones uncorrelated. Each is then quantised by itself. The paper's metric loss is known to
us by its name alone; here it is InfoNCE over the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.data.sequences import train_items as items_of_train
from semid_jax.data.sequences import train_mask
from semid_jax.models.pmat_losses import contrast
from semid_jax.quantize import kmeans
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import check_codewords
from semid_jax.tokenizers.fused import Fused, side_by_side, train
from semid_jax.types import Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class FusidConfig:
    """FusID; width of the hidden layer and of sub-embeddings as in the paper.

    Attributes:
      hidden: width of the hidden layer.
      parts: n sub-embeddings, codes of an item.
      width: of each.
      codewords: K of each code (paper: 1,024; a code is one byte here).
      window: items that lie at most so far apart in a history occur together.
      temperature: of the metric loss.
      regulariser: weight of variance and covariance.
      steps: of the optimiser.
      batch_size: pairs.
      lr: at the peak.
    """

    hidden: int = 2048
    parts: int = 5
    width: int = 128
    codewords: int = 256
    window: int = 5
    temperature: float = 0.1
    regulariser: float = 0.2
    steps: int = 2000
    batch_size: int = 512
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses codes that do not fit a byte."""
        check_codewords("fusid", self.codewords)


class Fusid(nn.Module):
    """Linear, batch normalisation, ReLU, linear; layer normalisation of each sub-embedding."""

    config: FusidConfig

    def setup(self) -> None:
        """Creates the parameters."""
        c = self.config
        self.hidden = nn.Dense(c.hidden, use_bias=False)
        self.weight = self.param("weight", nn.initializers.ones, (c.hidden,))
        self.bias = self.param("bias", nn.initializers.zeros, (c.hidden,))
        self.out = nn.Dense(c.parts * c.width)
        self.norm = nn.LayerNorm()

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of the hidden layer's inputs over a batch float[n, d]."""
        hidden = self.hidden(x)
        return jnp.mean(hidden, axis=0), jnp.sqrt(jnp.var(hidden, axis=0) + 1e-5)

    def __call__(self, x: jax.Array, moments: tuple[jax.Array, jax.Array]) -> jax.Array:
        """float[n, d] to float[n, parts, width]."""
        mean, deviation = moments
        hidden = self.weight * (self.hidden(x) - mean) / deviation + self.bias
        c = self.config
        return self.norm(self.out(jax.nn.relu(hidden)).reshape(-1, c.parts, c.width))


def metric_loss(left: jax.Array, right: jax.Array, temperature: float) -> jax.Array:
    """InfoNCE both ways: row i of `left` occurs with row i of `right`.

    Args:
      left: float32[n, d].
      right: float32[n, d].
      temperature: divides the cosines.

    Returns:
      float32[], mean over rows.
    """
    return 0.5 * (contrast(left, right, temperature) + contrast(right, left, temperature))


def variance_loss(parts: jax.Array) -> jax.Array:
    """VICReg's hinge: how much the deviation of each coordinate is short of one.

    Args:
      parts: float32[n, P, w].

    Returns:
      float32[], mean over coordinates.
    """
    return jnp.mean(jax.nn.relu(1.0 - jnp.sqrt(jnp.var(parts, axis=0) + 1e-4)))


def covariance_loss(parts: jax.Array) -> jax.Array:
    """How much different sub-embeddings say of each other.

    Args:
      parts: float32[n, P, w].

    Returns:
      float32[], squared covariances of coordinates of different parts, summed, per coordinate.
    """
    n, P, w = parts.shape
    centred = (parts - jnp.mean(parts, axis=0)).reshape(n, P * w)
    covariance = centred.T @ centred / (n - 1)
    part = jnp.arange(P * w) // w
    apart = part[:, None] != part
    return jnp.sum(jnp.where(apart, covariance**2, 0.0)) / (P * w)


def draw_pairs(
    interactions: Interactions, window: int, generator: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """Items that occur together: two of one user's train part, at most `window` apart.

    Args:
      interactions: histories.
      window: in positions.
      generator: draws them.
      shape: of the pairs.

    Returns:
      int32[*shape, 2].
    """
    lengths = interactions.lengths
    user = np.repeat(np.arange(len(lengths)), lengths)
    known = np.flatnonzero(train_mask(interactions))
    behind = known + 1
    has_next = (behind < len(user)) & np.isin(behind, known, assume_unique=True)
    has_next &= user[np.minimum(behind, len(user) - 1)] == user[known]
    first = generator.choice(known[has_next], shape)
    end = interactions.offsets[user[first]] + lengths[user[first]] - 2
    reach = np.minimum(window, end - 1 - first)
    second = first + 1 + (generator.random(shape) * reach).astype(np.int64)
    return np.stack([interactions.items[first], interactions.items[second]], axis=-1).astype(
        np.int32
    )


def fit(
    features: ItemFeatures, interactions: Interactions, config: FusidConfig, seed: int
) -> Fused:
    """Trains FusID on pairs of the train part.

    Args:
      features: normalised.
      interactions: histories.
      config: settings.
      seed: of everything random here.

    Returns:
      Sub-embeddings side by side, and k-means of each as a codebook of one cell.
    """
    x = side_by_side(features)
    items = np.flatnonzero(items_of_train(interactions))
    module = Fusid(config)
    some = jnp.asarray(x[items[:2]])
    blank = jnp.zeros(config.hidden), jnp.ones(config.hidden)
    params = jax.jit(module.init)(jax.random.key(seed), some, blank)

    def loss(params: Any, data: jax.Array, pairs: jax.Array, key: jax.Array) -> Any:
        del key
        shown = data[pairs.T.reshape(-1)]
        moments = module.apply(params, shown, method=Fusid.moments)
        parts = module.apply(params, shown, moments)
        left, right = jnp.split(parts.reshape(len(parts), -1), 2)
        metric = metric_loss(left, right, config.temperature)
        spread, shared = variance_loss(parts), covariance_loss(parts)
        said = {"metric": metric, "variance": spread, "covariance": shared}
        return metric + config.regulariser * (spread + shared), said

    def draw(generator: np.random.Generator, steps: int) -> np.ndarray:
        return draw_pairs(interactions, config.window, generator, (steps, config.batch_size))

    data = jnp.asarray(x)
    params = train(loss, params, data, draw, config.steps, config.lr, seed, "FusID")
    moments = jax.jit(lambda p, x: module.apply(p, x, method=Fusid.moments))(params, data[items])
    parts = np.array(jax.jit(module.apply)(params, data, moments))
    parts[0] = 0
    K = min(config.codewords, len(items))
    words = kmeans.fit_kmeans(parts[items], K, 25, seed)
    points = parts.reshape(len(parts), -1)
    width = points.shape[1]
    book = Codebook(jnp.zeros((1, width)), jnp.eye(width), jnp.asarray(words))
    return Fused(points, book)
