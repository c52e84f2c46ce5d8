"""How much likeness counts in S2, chosen on validation.

In training, free vectors explain what likeness would explain of new histories, so its scale k is
learned too small. One factor on all of k is read off validation, like the epoch that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def scale_likeness(params: Any, factor: float) -> Any:
    """Parameters of a generator with a dense term, k times a factor."""
    inner = params["params"]
    return {**params, "params": {**inner, "likeness_by": factor * inner["likeness_by"]}}


def choose_factor(
    params: Any, validate: Callable[[Any], dict[str, float]], factors: Sequence[float] = FACTORS
) -> tuple[float, list[dict[str, float]]]:
    """The factor that is best on validation, the smallest of equals.

    Args:
      params: of a generator with a dense term.
      validate: parameters to validation metrics, "ndcg@10" among them.
      factors: ascending; 1 leaves the parameters as they are.

    Returns:
      The factor, and the metrics under each of `factors`.
    """
    found = [validate(scale_likeness(params, factor)) for factor in factors]
    ndcg = [metrics["ndcg@10"] for metrics in found]
    return factors[ndcg.index(max(ndcg))], found
