"""What the lists look like beyond accuracy: coverage, concentration, novelty, diversity."""

from __future__ import annotations

import numpy as np

from semid_jax.types import ItemFeatures


def list_metrics(
    items: np.ndarray,
    popularity: np.ndarray,
    features: ItemFeatures,
    n_users: int,
    k: int = 10,
    chunk: int = 2048,
) -> dict[str, float]:
    """Describes the first k items of all users' lists.

    Args:
      items: int32[U, >= k], ranked items, 0 = no item.
      popularity: int64[N + 1], interactions per item in the training part.
      features: normalised item features; diversity is measured in each modality.
      n_users: users of the training part, the base of self-information.
      k: list length looked at.
      chunk: users at a time.

    Returns:
      "coverage@k" (share of the catalogue shown to anyone), "gini@k" (inequality of exposure over
      the whole catalogue, 0 = all equal), "entropy@k" (Shannon, bits, of the exposure),
      "novelty@k" (mean self-information of what is shown, bits) and
      "intra_list_diversity_<modality>@k" (mean cosine distance between two items of a list).
    """
    shown = items[:, :k]
    exposure = np.bincount(shown.ravel(), minlength=len(popularity))[1:]
    metrics = {
        f"coverage@{k}": float((exposure > 0).mean()),
        f"gini@{k}": gini(exposure),
        f"entropy@{k}": entropy(exposure),
        f"novelty@{k}": novelty(shown, popularity, n_users),
    }
    for name in features.modalities:
        metrics[f"intra_list_diversity_{name}@{k}"] = intra_list_diversity(
            shown, features.x[name], features.present[name], chunk
        )
    return metrics


def gini(exposure: np.ndarray) -> float:
    """Gini index of the exposure int[N]: 0 if all items are shown alike, near 1 if one takes all.

    G = sum_i (2 i - N - 1) x_(i) / (N sum x), x sorted upwards.
    """
    total = exposure.sum()
    if total == 0:
        return 0.0
    n = len(exposure)
    weights = 2.0 * np.arange(1, n + 1) - n - 1
    return float(weights @ np.sort(exposure) / (n * total))


def entropy(exposure: np.ndarray) -> float:
    """Shannon entropy, in bits, of the distribution of exposure int[N] over items."""
    shares = exposure[exposure > 0] / max(exposure.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def novelty(shown: np.ndarray, popularity: np.ndarray, n_users: int) -> float:
    """Mean self-information -log2 p of the items shown (Zhou et al. 2010), in bits.

    Args:
      shown: int32[U, k], 0 = no item.
      popularity: int64[N + 1]; p = popularity / n_users, at most 1; an item that nobody chose
        counts as chosen once, so that its novelty is finite and the largest.
      n_users: users behind the popularity.

    Returns:
      The mean over all shown items, 0.0 if nothing is shown.
    """
    valid = shown > 0
    if not valid.any():
        return 0.0
    share = np.minimum(np.maximum(popularity, 1) / max(n_users, 1), 1.0)
    return float(-np.log2(share)[shown[valid]].mean()) + 0.0


def intra_list_diversity(
    shown: np.ndarray, x: np.ndarray, present: np.ndarray, chunk: int = 2048
) -> float:
    """Mean over lists of `list_diversity`.

    Returns:
      A number in [0, 2], 0.0 if no list has two items.
    """
    of_lists = list_diversity(shown, x, present, chunk)
    counted = np.isfinite(of_lists)
    return float(of_lists[counted].mean()) if counted.any() else 0.0


def list_diversity(
    shown: np.ndarray, x: np.ndarray, present: np.ndarray, chunk: int = 2048
) -> np.ndarray:
    """Mean cosine distance between two items of a list.

    Args:
      shown: int32[U, k], 0 = no item.
      x: float32[N + 1, d], features of one modality.
      present: bool[N + 1]; items that lack the modality are left out.
      chunk: users at a time.

    Returns:
      float64[U] in [0, 2], NaN for lists with fewer than two items that have the modality.
    """
    norms = np.linalg.norm(x, axis=1)
    usable = present & (norms > 0)
    usable[0] = False
    unit = np.where(usable[:, None], x / np.where(usable, norms, 1.0)[:, None], 0.0)
    unit = unit.astype(np.float32)
    found = np.full(len(shown), np.nan)
    for start in range(0, len(shown), chunk):
        part = shown[start : start + chunk]
        count = usable[part].sum(axis=1)
        # |sum of unit vectors|^2 = n + the sum of cosines over ordered pairs: no [k, k] needed.
        squared = (unit[part].sum(axis=1, dtype=np.float64) ** 2).sum(axis=1)
        enough = count >= 2
        n = count[enough]
        cosine = (squared[enough] - n) / (n * (n - 1))
        found[start : start + chunk][enough] = 1.0 - cosine
    return found
