"""The figure of how much users care for each modality, and where the archetypes stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from semid_jax.report.canvas import COLOURS, GREY, INK, SKY, finish_axes, new_figure, save_figure

_MAX_POINTS = 5000


def draw_alpha(
    alpha: np.ndarray,
    archetypes: np.ndarray,
    assignment: np.ndarray,
    modalities: Sequence[str],
    path: Path,
) -> Path:
    """How much users care for each modality, and where the archetypes stand.

    Three modalities are drawn on the simplex, two as a histogram of the first one's weight, any
    other number as one distribution per modality.

    Args:
      alpha: float[U, M], weights of the users.
      archetypes: float[A, M], weights of the archetypes.
      assignment: int[U], the users' archetypes.
      modalities: M names, in the order of the axis.
      path: the PNG.
    """
    if len(modalities) == 3:
        figure = _draw_simplex(alpha, archetypes, assignment, modalities)
    elif len(modalities) == 2:
        figure = _draw_histogram(alpha, archetypes, assignment, modalities)
    else:
        figure = _draw_distributions(alpha, archetypes, modalities)
    return save_figure(figure, path)


def _draw_simplex(
    alpha: np.ndarray, archetypes: np.ndarray, assignment: np.ndarray, modalities: Sequence[str]
) -> Figure:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    figure = new_figure(6.0, 5.2)
    axes = figure.add_subplot()
    for share in (0.25, 0.5, 0.75):
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            ends = np.zeros((2, 3))
            ends[:, a] = share
            ends[0, b] = ends[1, c] = 1 - share
            axes.plot(*(ends @ corners).T, color="#E3E6EA", linewidth=0.8, zorder=1)
    axes.plot(*corners[[0, 1, 2, 0]].T, color=INK, linewidth=1.2, zorder=2)
    shown = _sample(len(alpha))
    points = alpha[shown] @ corners
    colours = [COLOURS[a % len(COLOURS)] for a in assignment[shown]]
    axes.scatter(points[:, 0], points[:, 1], s=9, c=colours, alpha=0.45, linewidths=0, zorder=3)
    places = archetypes @ corners
    for a, place in enumerate(places):
        axes.scatter(place[0], place[1], s=170, color=COLOURS[a % len(COLOURS)], edgecolors="white",
                     linewidths=1.6, zorder=4)  # fmt: skip
        axes.annotate(str(a), place, ha="center", va="center", color="white", fontsize=9,
                      fontweight="bold", zorder=5)  # fmt: skip
    for corner, name, side, offset in zip(
        corners, modalities, ("left", "right", "center"), ((0, -8), (0, -8), (0, 8)), strict=True
    ):
        axes.annotate(f"all {name}", corner, xytext=offset, textcoords="offset points", ha=side,
                      va="bottom" if offset[1] > 0 else "top", fontsize=11)  # fmt: skip
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-0.06, 1.06)
    axes.set_ylim(-0.11, 0.96)
    axes.set_title(f"Weights of {len(alpha):,} users; numbered discs: archetypes", fontsize=11)
    return figure


def _draw_histogram(
    alpha: np.ndarray, archetypes: np.ndarray, assignment: np.ndarray, modalities: Sequence[str]
) -> Figure:
    figure = new_figure(6.6, 3.6)
    axes = figure.add_subplot()
    groups = [alpha[assignment == a, 0] for a in range(len(archetypes))]
    low, high = float(alpha[:, 0].min()), float(alpha[:, 0].max())
    margin = max(0.05 * (high - low), 0.01)
    count = int(np.clip(2 * len(alpha) ** 0.5, 8, 44))  # few users make no histogram of 44 bars
    bins = np.linspace(max(low - margin, 0), min(high + margin, 1), count + 1)
    colours = [COLOURS[a % len(COLOURS)] for a in range(len(archetypes))]
    axes.hist(groups, bins=list(bins), stacked=True, color=colours, linewidth=0)
    levels = _levels(archetypes[:, 0], gap=0.035 * (bins[-1] - bins[0]))
    top = axes.get_ylim()[1] * (1.15 + 0.09 * max(levels))
    axes.set_ylim(0, top)
    for a, weight in enumerate(archetypes[:, 0]):
        height = top * (0.95 - 0.075 * levels[a])
        axes.plot([weight, weight], [0, height], color=colours[a], linewidth=1.2, linestyle="--")
        axes.annotate(str(a), (weight, height), ha="center", va="center", color="white",
                      fontsize=9, fontweight="bold",
                      bbox={"boxstyle": "circle,pad=0.25", "fc": colours[a], "ec": "white"},
                      )  # fmt: skip
    first, second = modalities
    finish_axes(
        axes, f"weight of {first} (the rest is {second}); numbered discs: archetypes", "users"
    )
    axes.grid(False, axis="x")
    return figure


def _draw_distributions(
    alpha: np.ndarray, archetypes: np.ndarray, modalities: Sequence[str]
) -> Figure:
    figure = new_figure(1.6 + 1.3 * len(modalities), 3.8)
    axes = figure.add_subplot()
    parts = axes.boxplot(alpha, widths=0.55, showfliers=False, patch_artist=True,
                         medianprops={"color": INK, "linewidth": 1.6},
                         whiskerprops={"color": GREY}, capprops={"color": GREY})  # fmt: skip
    for patch in parts["boxes"]:
        patch.set(facecolor=SKY, edgecolor=INK, alpha=0.6)
    for a, weights in enumerate(archetypes):
        shift = 0.36 * ((a + 0.5) / len(archetypes) - 0.5)
        axes.scatter(np.arange(1, len(modalities) + 1) + shift, weights, s=34, zorder=4,
                     color=COLOURS[a % len(COLOURS)], edgecolors="white")  # fmt: skip
    axes.set_xticks(range(1, len(modalities) + 1), list(modalities))
    axes.set_ylim(0, None)
    finish_axes(axes, "", "weight (boxes: users, dots: archetypes)")
    axes.grid(False, axis="x")
    return figure


def _levels(places: np.ndarray, gap: float) -> list[int]:
    """A row for each label, so that labels closer than `gap` do not cover each other."""
    levels = [0] * len(places)
    ends: list[float] = []
    for number in np.argsort(places, kind="stable"):
        free = [row for row, end in enumerate(ends) if places[number] - end >= gap]
        levels[number] = free[0] if free else len(ends)
        ends[levels[number] : levels[number] + 1] = [float(places[number])]
    return levels


def _sample(total: int) -> np.ndarray:
    """A fixed choice of a few thousand of `total` points: a figure must stay legible."""
    if total <= _MAX_POINTS:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, _MAX_POINTS, replace=False))
