"""Figures as PNG files: training, comparison, speed, lists, one user in time; see `weights` too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from semid_jax.report.canvas import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    PINK,
    RED,
    SKY,
    finish_axes,
    new_figure,
    save_figure,
)


def draw_training(history: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Losses and validation metrics over steps, the best evaluation marked.

    Args:
      history: the lines of history.jsonl, flat; "step", any names that end in "loss" (a sum of
        several, "item_losses", would flatten its parts), and "validation.ndcg@10",
        "validation.recall@10" or the like.
      path: the PNG.

    Returns:
      The path, or None if there is nothing to draw.
    """
    names = sorted({name for line in history for name, v in line.items() if _is_number(v)})
    losses = [name for name in names if name.endswith("loss")]
    metrics = [name for name in names if name.split(".")[-1] in ("ndcg@10", "recall@10")]
    panels = [group for group in (losses, metrics) if group]
    if not panels or not history:
        return None
    figure = new_figure(5.2 * len(panels), 3.7)
    for number, group in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        for colour, name in zip(COLOURS, group, strict=False):
            points = [(_step(line, i), line[name]) for i, line in enumerate(history, 1)
                      if _is_number(line.get(name))]  # fmt: skip
            steps, values = np.array(points, float).T
            axes.plot(steps, values, color=colour, linewidth=2, label=_spoken(name),
                      marker="o", markersize=3.5)  # fmt: skip
            if group is metrics:
                best = int(values.argmax())
                axes.plot(steps[best], values[best], "o", color=colour, markersize=9, zorder=5)
                axes.annotate(f"{values[best]:.4f}", (steps[best], values[best]),
                              xytext=(0, 9), textcoords="offset points", ha="center",
                              color=colour, fontweight="bold")  # fmt: skip
        finish_axes(axes, "step", "loss" if group is losses else "validation metric")
        if group is metrics:
            axes.set_ylim(bottom=0, top=1.15 * axes.get_ylim()[1])
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3,
                    fontsize="small", columnspacing=1.2, handlelength=1.4)  # fmt: skip
    return save_figure(figure, path)


def draw_bars(
    rows: Sequence[Mapping[str, Any]], metric: str, path: Path, name: str = "model"
) -> Path | None:
    """One horizontal bar per method, with its 95 % interval where the row has one.

    Args:
      rows: {name: "popularity", metric: 0.01, metric + "_low": …, metric + "_high": …,
        "highlight": True for the model}.
      metric: which number, e.g. "recall@10".
      path: the PNG.
      name: the field that holds the method's name.
    """
    shown = [row for row in rows if _is_number(row.get(metric))]
    if not shown:
        return None
    shown = shown[::-1]
    values = np.array([row[metric] for row in shown])
    figure = new_figure(6.4, 0.9 + 0.42 * len(shown))
    axes = figure.add_subplot()
    colours = [BLUE if row.get("highlight") else GREY for row in shown]
    axes.barh(range(len(shown)), values, color=colours, height=0.66)
    right = values.copy()
    for r, row in enumerate(shown):
        low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
        if _is_number(low) and _is_number(high):
            axes.plot(
                np.array([low, high], float),
                [r, r],
                color=INK,
                linewidth=1.4,
                solid_capstyle="butt",
            )
            right[r] = max(right[r], high)
        axes.annotate(f"{values[r]:.4f}", (right[r], r), xytext=(5, 0), va="center",
                      textcoords="offset points")  # fmt: skip
    axes.set_yticks(range(len(shown)), [str(row.get(name, "")) for row in shown])
    axes.set_xlim(0, max(float(right.max()) * 1.16, 1e-6))
    has_interval = any(_is_number(row.get(f"{metric}_low")) for row in shown)
    label = _spoken(metric) + (" (line: 95 % interval over users)" if has_interval else "")
    finish_axes(axes, label, "")
    axes.grid(False, axis="y")
    return save_figure(figure, path)


def draw_tradeoff(points: Mapping[str, Mapping[str, float]], path: Path) -> Path | None:
    """What an update of the read side gains by what it moves: a point for each budget.

    Args:
      points: "<percent>" of codes that may move, or "full" for every item encoded anew, to
        {"churn", "difference", "low", "high"}, as `eval.updates.update_sweep` has them.
      path: the PNG.
    """
    if not points:
        return None
    names = sorted(points, key=lambda name: points[name]["churn"])
    churn = 100 * np.array([points[name]["churn"] for name in names])
    gain, low, high = (
        np.array([points[name][field] for name in names]) for field in ("difference", "low", "high")
    )
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    axes.axhline(0.0, color=INK, linewidth=1.0)
    axes.vlines(churn, low, high, color=GREY, linewidth=1.4)
    axes.plot(np.append(0.0, churn), np.append(0.0, gain), color=BLUE, marker="o", markersize=5)
    widest = float(churn.max()) * 1.08 + 1.0
    near = np.append(np.diff(churn) < 0.06 * widest, False)  # points whose right one is close
    for place, (name, x, y) in enumerate(zip(names, churn, high, strict=True)):
        label = "all anew" if name == "full" else f"{name} %"
        side = "right" if near[place] else "left" if near[place - 1] else "center"
        axes.annotate(label, (x, y), xytext=(0, 4), ha=side, textcoords="offset points")
    axes.set_xlim(0, widest)
    axes.margins(y=0.14)
    finish_axes(
        axes,
        "codes moved, % (labels: allowed; lines: paired 95 % intervals)",
        "NDCG@10, gain over no update",
    )
    return save_figure(figure, path)


def draw_speed(
    rows: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]], path: Path
) -> Path:
    """Recall of the exact list against time, a panel for each number of users per call.

    Args:
      rows: of the benchmark: "decoder", "batch", "p50_ms", "recall@10"; those without recall are
        left out.
      curve: points of decoders as they read more: "decoder", "batch", "size", "p50_ms",
        "recall@10".
      path: the PNG.
    """
    batches = sorted({row["batch"] for row in rows})
    # "slower" is told of whole answers, which are more than a retrieval.
    worth = [row for row in rows if row.get("recall@10") is not None and "slower" not in row]
    names = dict.fromkeys(row["decoder"] for row in worth)
    colours = dict(zip(names, COLOURS, strict=False))
    figure = new_figure(5.2 * len(batches), 4.0)
    for panel, batch in enumerate(batches, 1):
        axes = figure.add_subplot(1, len(batches), panel)
        for name in dict.fromkeys(point["decoder"] for point in curve):
            line = [p for p in curve if (p["decoder"], p["batch"]) == (name, batch)]
            line.sort(key=lambda p: p["size"])
            axes.plot([p["p50_ms"] for p in line], [p["recall@10"] for p in line], linewidth=1.8,
                      marker=".", color=colours[name], label=f"{name}, more or less read",
                      zorder=2)  # fmt: skip
        for row in (row for row in worth if row["batch"] == batch):
            axes.plot(row["p50_ms"], row["recall@10"], "o", color=colours[row["decoder"]],
                      markersize=9, label=row["decoder"], zorder=3)  # fmt: skip
        axes.set_xscale("log")
        axes.set_title(f"{batch} user{'s' * (batch > 1)} per call", fontsize=11)
        finish_axes(axes, "ms per call, median (retrieval only)", "Recall@10 of the exact list")
        axes.margins(x=0.15, y=0.12)
        low, high = axes.get_xlim()
        named = (1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)  # more would touch each other
        axes.xaxis.set_major_locator(LogLocator(subs=named))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    # Below the panels: points lie anywhere in them.
    figure.legend(handles, labels, frameon=False, fontsize="small", loc="outside lower center",
                  ncols=5)  # fmt: skip
    return save_figure(figure, path)


def draw_list_sizes(sizes: np.ndarray, path: Path) -> Path:
    """How evenly the items fill the cells.

    Args:
      sizes: int[C] or int[A, C], items per coarse cell (of each archetype).
      path: the PNG.
    """
    flat = np.asarray(sizes).ravel()
    mean, largest = float(flat.mean()), int(flat.max())
    figure = new_figure(6.0, 3.2)
    axes = figure.add_subplot()
    limit = 2 * mean
    bins = np.linspace(0, max(limit, largest) * 1.02 + 1e-9, 36)
    axes.hist(flat, bins=list(bins), color=SKY, edgecolor="white", linewidth=0.6)
    top = axes.get_ylim()[1] * 1.12
    axes.set_ylim(0, top)
    # Near the right edge a label goes to the left of its line, between two lines it has no room.
    for value, text, colour, side in (
        (mean, f"mean {mean:.1f}", INK, "left"),
        (limit, f"allowed {limit:.0f}", RED, "right"),
    ):
        axes.axvline(value, color=colour, linewidth=1.6, linestyle="--")
        axes.annotate(text, (value, top), xytext=(4 if side == "left" else -4, -4), va="top",
                      ha=side, textcoords="offset points", color=colour)  # fmt: skip
    finish_axes(axes, f"items in a cell (largest {largest:,})", "cells")
    axes.grid(False, axis="x")
    return save_figure(figure, path)


def draw_user(
    short: np.ndarray,
    long: np.ndarray | None,
    drift: np.ndarray,
    threshold: float,
    updates: Sequence[int],
    modalities: Sequence[str],
    path: Path,
    planted: int | None = None,
) -> Path:
    """One user's weights over time above the drift score with its threshold and the updates.

    Args:
      short: float[T, M], short-term weights after each interaction.
      long: float[T, M], long-term weights, or None.
      drift: float[T], the drift score, NaN where it is not judged.
      threshold: above it the user's codes are updated; infinite where no history is long enough
        to judge, then it is not drawn.
      updates: positions of the updates.
      modalities: M names.
      path: the PNG.
      planted: position of the true drift, where it is known.
    """
    figure = new_figure(7.4, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    time = np.arange(1, len(drift) + 1)
    for m, name in enumerate(modalities):
        colour = COLOURS[m % len(COLOURS)]
        if long is not None:
            upper.plot(time, long[:, m], color=colour, linewidth=1.4, linestyle=":")
        upper.plot(time, short[:, m], color=colour, linewidth=2, label=name)
    upper.set_ylim(0, 1)
    finish_axes(upper, "", "weight" + ("\n(dotted: long-term)" if long is not None else ""))
    lower.plot(time, drift, color=INK, linewidth=1.8)
    judged = drift[np.isfinite(drift)]
    low, high = min([0.0, *judged]), max([0.0, *judged])
    if np.isfinite(threshold):
        high = max(high, threshold)
        lower.axhline(threshold, color=RED, linewidth=1.4, linestyle="--", label="threshold")
        lower.fill_between(time, threshold, drift, where=drift > threshold, color=RED, alpha=0.22,
                           interpolate=True, linewidth=0)  # fmt: skip
    room = max(high - low, 1e-3)
    lower.set_ylim(low - 0.05 * room, high + 0.15 * room)
    for axes in (upper, lower):
        for i, update in enumerate(updates):
            axes.axvline(update + 1, color=GREEN, linewidth=1.6, alpha=0.8,
                         label="codes updated" if i == 0 and axes is lower else None)  # fmt: skip
        if planted is not None:
            axes.axvline(planted + 1, color=PINK, linewidth=1.8, linestyle="-.",
                         label="true drift" if axes is lower else None)  # fmt: skip
    finish_axes(lower, "interactions", "drift score")
    for axes in (upper, lower):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    axes.set_xlim(1, max(len(drift), 2))
    return save_figure(figure, path)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    )


def _step(line: Mapping[str, Any], default: int) -> float:
    return float(line.get("step", line.get("epoch", default)))


def _spoken(name: str) -> str:
    """ "validation.ndcg@10" -> "validation NDCG@10"."""
    return (
        name.replace("ndcg", "NDCG").replace("recall", "Recall").replace(".", " ").replace("_", " ")
    )
