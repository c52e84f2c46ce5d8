"""The tokenizers by name, with their sections of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from semid_jax.data.sequences import train_items
from semid_jax.tokenizers import fusid, mmq, mql4grec, pctx, rqvae
from semid_jax.tokenizers.fused import Fused
from semid_jax.types import InputError, Interactions, ItemFeatures


@dataclasses.dataclass(frozen=True)
class FuseConfig:
    """Whose tokenizer makes the items' vectors and codes.

    Attributes:
      method: "rqvae", "mql4grec", "fusid", "mmq" or "pctx", with the settings of the section of
        that name (mql4grec: rqvae); empty for the recommender's own: PMAT for hdnag, all
        modalities side by side for the others.
    """

    method: str = ""


@dataclasses.dataclass(frozen=True)
class Method:
    """A tokenizer.

    Attributes:
      section: of its settings.
      config: their dataclass.
      fit: of features, interactions, settings and seed.
    """

    section: str
    config: Callable[..., Any]
    fit: Callable[[ItemFeatures, Interactions, Any, int], Fused]


def _of_items(fit: Callable[..., Fused]) -> Callable[[ItemFeatures, Interactions, Any, int], Fused]:
    """A tokenizer that knows no histories: only which items may be seen."""

    def of_interactions(
        features: ItemFeatures, interactions: Interactions, config: Any, seed: int
    ) -> Fused:
        return fit(features, train_items(interactions), config, seed)

    return of_interactions


METHODS: Mapping[str, Method] = {
    "rqvae": Method("rqvae", rqvae.RqvaeConfig, _of_items(rqvae.fit)),
    "mql4grec": Method("rqvae", rqvae.RqvaeConfig, _of_items(mql4grec.fit)),
    "fusid": Method("fusid", fusid.FusidConfig, fusid.fit),
    "mmq": Method("mmq", mmq.MmqConfig, _of_items(mmq.fit)),
    "pctx": Method("pctx", pctx.PctxConfig, pctx.fit),
}
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "fuse": FuseConfig,
    **{method.section: method.config for method in METHODS.values()},
}


def method_of(name: str) -> Method:
    """A tokenizer by its name.

    Raises:
      InputError: there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"fuse.method: {name!r} is unknown; use {', '.join(METHODS)}")
    return METHODS[name]
