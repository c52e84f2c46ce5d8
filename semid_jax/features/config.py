"""Settings of the feature stage."""

from __future__ import annotations

import dataclasses

from semid_jax.settings import check_least, check_share


@dataclasses.dataclass(frozen=True)
class FeaturesConfig:
    """How raw features become the tokenizer's input.

    Attributes:
      modalities: names to use; () for all that the data set has. Besides those, "behaviour" is what
        is chosen together, see `features.behaviour`.
      dimensions: principal components kept per modality, at most.
      whitening: 0 keeps the variance of each component, 1 makes all equal; between, in between.
    """

    modalities: tuple[str, ...] = ()
    dimensions: int = 128
    whitening: float = 0.0

    def __post_init__(self) -> None:
        """Refuses numbers out of their range."""
        check_least(self, "features", {"dimensions": 1})
        check_share(self, "features", ("whitening",))
