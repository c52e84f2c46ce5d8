"""Settings of the report."""

from __future__ import annotations

import dataclasses

from semid_jax.settings import check_least


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What the report shows.

    Attributes:
      users: users told one by one.
    """

    users: int = 4

    def __post_init__(self) -> None:
        """Refuses fewer users than none."""
        check_least(self, "report", {"users": 0})
