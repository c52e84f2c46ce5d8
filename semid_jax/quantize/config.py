"""What a user can set about quantisation."""

from __future__ import annotations

import dataclasses

from semid_jax import types

KINDS = ("hierarchical", "residual")
FINE = ("absolute", "residual")


@dataclasses.dataclass(frozen=True)
class QuantizeConfig:
    """Settings of the codebooks.

    Attributes:
      kind: "hierarchical" (cells, then product-quantised digits) or "residual" (k-means on what
        the cells and the digits before leave over).
      cells: C, 0 = round(sqrt(N)).
      digits: L, fine digits.
      shared: how many of them describe the item as the crowd sees it, the same for every archetype,
        and not as the archetype does: what is learned of them is learned from all users. Under
        "hierarchical" both parts divide D.
      codewords: K per digit, at most 256 because a code is one byte.
      fine: what the digits of "hierarchical" describe: "absolute" (z itself) or "residual"
        (z minus the centroid of its cell). "residual" codebooks always describe what is left.
      iterations: Lloyd steps of each k-means.
      rotation_iterations: alternations of the OPQ rotation; 0 keeps the eigenvalue allocation.
      balance: largest list of a column over the mean list, at least 1.
      max_points: vectors that codebooks are fitted on; a seeded sample where there are more.
      seed: of the sample and of the k-means++ starts; a run's own seed is added to it.
    """

    kind: str = "hierarchical"
    cells: int = 0
    digits: int = 16
    shared: int = 0
    codewords: int = 256
    fine: str = "absolute"
    iterations: int = 25
    rotation_iterations: int = 10
    balance: float = 2.0
    max_points: int = 65536
    seed: int = 0

    @property
    def own(self) -> int:
        """Digits that describe the item as its archetype sees it."""
        return self.digits - self.shared


def check_codewords(section: str, codewords: int) -> None:
    """Refuses codes that do not fit a byte.

    Args:
      section: of the configuration.
      codewords: K.

    Raises:
      InputError: names the field.
    """
    if not 1 <= codewords <= 256:
        raise types.InputError(
            f"{section}.codewords: {codewords} is outside 1..256, a code is one byte"
        )


def check(config: QuantizeConfig, width: int) -> None:
    """Refuses settings that no codebook can have.

    Args:
      config: the settings.
      width: D, length of an item vector.

    Raises:
      InputError: names the field and the remedy.
    """
    if config.kind not in KINDS:
        raise types.InputError(f"quantize.kind: {config.kind!r} is not one of {', '.join(KINDS)}")
    if config.fine not in FINE:
        raise types.InputError(f"quantize.fine: {config.fine!r} is not one of {', '.join(FINE)}")
    check_codewords("quantize", config.codewords)
    if config.digits < 1:
        raise types.InputError(f"quantize.digits: {config.digits}, needs at least 1")
    if not 0 <= config.shared < config.digits:
        raise types.InputError(
            f"quantize.shared: {config.shared} of {config.digits} digits; needs fewer than all"
        )
    for part in (config.own, config.shared):
        if config.kind == "hierarchical" and part and width % part:
            fitting = max(width // part, 1) * part
            raise types.InputError(
                f"quantize.digits: {part} does not divide the model width {width} ({config.digits} "
                f"digits, {config.shared} of them shared); a width of {fitting} would do"
            )
    if config.cells < 0:
        raise types.InputError(f"quantize.cells: {config.cells}, needs 0 (sqrt of items) or more")
    if config.balance < 1:
        raise types.InputError(f"quantize.balance: {config.balance}, needs at least 1")
    for name in ("iterations", "max_points"):
        if getattr(config, name) < 1:
            raise types.InputError(f"quantize.{name}: {getattr(config, name)}, needs at least 1")
    if config.rotation_iterations < 0:
        raise types.InputError(
            f"quantize.rotation_iterations: {config.rotation_iterations}, needs at least 0"
        )
