"""Checks that the sections of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping

from semid_jax.types import InputError


def check_least(config: object, section: str, least: Mapping[str, int]) -> None:
    """Refuses fields that are too small.

    Args:
      config: the section's dataclass.
      section: its name.
      least: field to the least that it can be.

    Raises:
      InputError: names the field and the least it can be.
    """
    for name, low in least.items():
        if getattr(config, name) < low:
            raise InputError(f"{section}.{name}={getattr(config, name)}: give {low} or more")


def check_share(config: object, section: str, names: tuple[str, ...]) -> None:
    """Refuses fields that are no share, 0 to 1.

    Raises:
      InputError: names the field.
    """
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise InputError(f"{section}.{name}={getattr(config, name)}: a share, 0 to 1")
