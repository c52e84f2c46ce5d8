"""MMQ: a mixture of experts, shared and of one modality, each with a codebook of its own.

"MMQ: Multimodal Mixture-of-Quantization Tokenization for Semantic ID Generation" (WSDM 2026,
2508.15281), first stage. Its second stage, in which the generator's loss reaches the tokenizer
through soft codes, is left out: tokenizers are compared before the same generators.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semid_jax.models.encoders import unit
from semid_jax.quantize import kmeans
from semid_jax.quantize.codebook import Codebook
from semid_jax.quantize.config import check_codewords
from semid_jax.tokenizers.fused import Fused, draw_items, train
from semid_jax.tokenizers.rqvae import Mlp
from semid_jax.types import ItemFeatures


@dataclasses.dataclass(frozen=True)
class MmqConfig:
    """MMQ; numbers of experts and weights of losses as in the paper.

    Attributes:
      hidden: width of the hidden layer of experts and decoders.
      width: of an expert's output.
      shared: experts that see all modalities.
      specific: experts of each modality.
      codewords: K of each expert (paper: 100 on public data).
      auxiliary: weight of rebuilding each modality from its own experts.
      orthogonality: weight of keeping experts apart.
      commitment: how hard outputs are drawn to their codewords.
      steps: of the optimiser.
      batch_size: items.
      lr: at the peak.
    """

    hidden: int = 256
    width: int = 64
    shared: int = 2
    specific: int = 2
    codewords: int = 100
    auxiliary: float = 10.0
    orthogonality: float = 0.005
    commitment: float = 0.25
    steps: int = 3000
    batch_size: int = 1024
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Refuses codes that do not fit a byte."""
        check_codewords("mmq", self.codewords)


def cosine_quantise(
    codebooks: jax.Array, v: jax.Array, commitment: float
) -> tuple[jax.Array, jax.Array]:
    """Every expert's output becomes the codeword of its own codebook with the largest cosine.

    Args:
      codebooks: float32[E, K, d].
      v: float32[n, E, d].
      commitment: beta.

    Returns:
      float32[n, E, d], unit codewords with the gradient of unit v (straight through); float32[n],
      sum over experts of |sg(v) - e|^2 + beta |v - sg(e)|^2, both of unit length.
    """
    hold = jax.lax.stop_gradient
    v, words = unit(v), unit(codebooks)
    code = jnp.argmax(jnp.einsum("ned,ekd->nek", hold(v), hold(words)), axis=-1)
    word = words[jnp.arange(len(words)), code]
    loss = jnp.sum((hold(v) - word) ** 2 + commitment * (v - hold(word)) ** 2, axis=(1, 2))
    return v + hold(word - v), loss


def orthogonality_loss(v: jax.Array) -> jax.Array:
    """|V V^T - I|^2 of the experts' unit outputs V float32[n, E, d], mean over items."""
    v = unit(v)
    gram = jnp.einsum("ned,nfd->nef", v, v)
    return jnp.mean(jnp.sum((gram - jnp.eye(v.shape[1])) ** 2, axis=(1, 2)))


class Mmq(nn.Module):
    """Experts, gates, codebooks and decoders. `modalities` is sorted, `widths` are d_m."""

    config: MmqConfig
    modalities: tuple[str, ...]
    widths: tuple[int, ...]

    def setup(self) -> None:
        """Creates the parameters, each named after its modality."""
        c = self.config
        inner = (c.hidden, c.width)
        self.shared = [Mlp(inner, name=f"shared_{k}") for k in range(c.shared)]
        self.specific = [
            [Mlp(inner, name=f"{name}_{k}") for k in range(c.specific)] for name in self.modalities
        ]
        self.gates = [nn.Dense(c.specific, name=f"gate_{name}") for name in self.modalities]
        self.whole = Mlp((c.hidden, sum(self.widths)), name="decoder")
        self.own = [
            Mlp((c.hidden, width), name=f"decoder_{name}")
            for name, width in zip(self.modalities, self.widths, strict=True)
        ]
        experts = c.shared + c.specific * len(self.modalities)
        shape = (experts, c.codewords, c.width)
        self.codebooks = self.param("codebooks", nn.initializers.normal(1.0), shape)

    def experts(self, x: Mapping[str, jax.Array]) -> jax.Array:
        """Outputs, shared ones first: modality -> float[n, d_m] to float[n, E, width]."""
        together = jnp.concatenate([x[name] for name in self.modalities], axis=-1)
        outputs = [expert(together) for expert in self.shared]
        for name, own in zip(self.modalities, self.specific, strict=True):
            outputs += [expert(x[name]) for expert in own]
        return jnp.stack(outputs, axis=1)

    def losses(
        self, x: Mapping[str, jax.Array], present: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """The parts of the loss over a batch of items.

        Args:
          x: modality -> float[n, d_m].
          present: modality -> bool[n].
        """
        c = self.config
        v = self.experts(x)
        quantised, loss = cosine_quantise(self.codebooks, v, c.commitment)
        common = jnp.sum(quantised[:, : c.shared], axis=1)
        specific = quantised[:, c.shared :].reshape(len(v), len(self.modalities), c.specific, -1)
        fused, auxiliary = common, jnp.zeros(())
        for m, name in enumerate(self.modalities):
            gate = jax.nn.softmax(self.gates[m](x[name]))
            own = jnp.einsum("nk,nkd->nd", gate, specific[:, m])
            fused += own
            error = jnp.sum((self.own[m](own) - x[name]) ** 2, axis=-1) * present[name]
            auxiliary += jnp.mean(error)
        together = jnp.concatenate([x[name] for name in self.modalities], axis=-1)
        whole = jnp.mean(jnp.sum((self.whole(fused) - together) ** 2, axis=-1))
        return {
            "reconstruction": whole,
            "auxiliary": auxiliary,
            "orthogonality": orthogonality_loss(v),
            "quantisation": jnp.mean(loss),
        }


def fit(features: ItemFeatures, train_items: np.ndarray, config: MmqConfig, seed: int) -> Fused:
    """Trains MMQ's first stage.

    Args:
      features: normalised.
      train_items: bool[N + 1], items that may be seen.
      config: settings.
      seed: of everything random here.

    Returns:
      Unit outputs of the experts side by side, and their codebooks as one of a single cell.
    """
    items = np.flatnonzero(train_items)
    config = dataclasses.replace(config, codewords=min(config.codewords, len(items)))
    widths = tuple(features.x[name].shape[1] for name in features.modalities)
    module = Mmq(config, features.modalities, widths)
    data = jax.tree.map(jnp.asarray, (features.x, features.present))
    some = jax.tree.map(lambda a: a[items[:2]], data)
    initialise = functools.partial(module.init, method=Mmq.losses)
    params = jax.jit(initialise)(jax.random.key(seed), *some)
    experts = jax.jit(lambda p, x: unit(module.apply(p, x, method=Mmq.experts)))
    start = np.asarray(experts(params, data[0]))[items]
    words = kmeans.fit_kmeans(start, config.codewords, 10, seed)
    params = {"params": {**params["params"], "codebooks": jnp.asarray(words)}}
    weights = {"auxiliary": config.auxiliary, "orthogonality": config.orthogonality}

    def loss(params: Any, data: Any, rows: jax.Array, key: jax.Array) -> Any:
        del key
        parts = module.apply(params, *jax.tree.map(lambda a: a[rows], data), method=Mmq.losses)
        return sum(weights.get(name, 1.0) * value for name, value in parts.items()), parts

    draw = draw_items(items, min(config.batch_size, len(items)))
    params = train(loss, params, data, draw, config.steps, config.lr, seed, "MMQ")
    outputs = np.array(experts(params, data[0]))
    outputs[0] = 0
    points = outputs.reshape(len(outputs), -1)
    width = points.shape[1]
    fine = unit(params["params"]["codebooks"])
    return Fused(points, Codebook(jnp.zeros((1, width)), jnp.eye(width), fine))
