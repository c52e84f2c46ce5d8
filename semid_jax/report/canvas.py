"""What all figures share: colours, an empty figure, axes, and how a figure becomes a file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semid_jax.disk import whole_file

# Okabe and Ito's colours, told apart by colour-blind readers too; blue is the model's own.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, GREY, INK = "#56B4E9", "#D55E00", "#B8BEC6", "#2B3440"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, "#8C6D31", "#6B5B95")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    # Not pyplot: it keeps figures alive and picks a window system.
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Names the axes and gives them the look of all figures."""
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK)
    axes.grid(True, color="#ECEEF1", linewidth=0.8)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes the PNG whole or not at all; equal figures give equal bytes."""
    with whole_file(path) as temporary:
        # Without the version, so that equal input gives equal bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return Path(path)
