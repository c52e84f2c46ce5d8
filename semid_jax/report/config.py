"""Settings of the report."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What the report shows.

    Attributes:
      users: users told one by one.
    """

    users: int = 4
