"""One look for all plots: ink on white, colours that colour-blind readers can tell apart, labels instead of legends."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import YearLocator
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe & Ito (2008), "Color Universal Design".
MODEL = "#0072B2"
BASELINE = "#8C8C8C"
ACCENT = "#D55E00"
SECOND = "#009E73"
INK = "#222222"
SOFT = "#6B6B6B"
GRID = "#E3E3E3"

PLOT_DPI = 144
STYLE: dict[str, Any] = {
    "figure.dpi": PLOT_DPI,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


def figure(
    title: str, subtitle: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (8.4, 4.9), **grid: Any
) -> tuple[Figure, Any]:
    """A figure with a title (what is shown) and a subtitle (of what, how to read it), both flush left.

    ``size`` is in inches; a subtitle of several lines makes the figure taller, never the plot smaller.
    """
    lines = textwrap.wrap(subtitle, width=int((size[0] - 0.2) * 14.6))  # letters of an inch, of ordinary words
    inset = (0.30 if columns == 1 else 0.46) + 0.18 * (len(lines) - 1)  # panels carry titles of their own
    height = size[1] + inset - 0.30
    with mpl.rc_context(STYLE):
        drawn, axes = plt.subplots(rows, columns, figsize=(size[0], height), **grid)
        drawn.subplots_adjust(
            left=0.66 / size[0] + 0.01, right=0.97, top=1.0 - (0.54 + inset) / height, bottom=0.58 / height
        )
        drawn.text(0.10 / size[0], 1.0 - 0.30 / height, title, fontsize=13, fontweight="bold", color=INK)
        drawn.text(
            0.10 / size[0], 1.0 - 0.41 / height, "\n".join(lines), fontsize=9, color=SOFT, va="top", linespacing=1.35
        )
    return drawn, axes


def years(days: NDArray[np.datetime64]) -> YearLocator:
    """Ticks at whole years, at most about six."""
    span = int((days[-1] - days[0]) / np.timedelta64(366, "D"))
    return YearLocator(max(1, -(-span // 6)))


def diverging() -> LinearSegmentedColormap:
    """Orange below zero, white at zero, blue above."""
    return LinearSegmentedColormap.from_list("skill", [ACCENT, "#FFFFFF", MODEL])


def save(drawn: Figure, path: Path) -> None:
    """Write a PNG without the program's name and date in it, so that equal plots are equal files."""
    with mpl.rc_context(STYLE):
        drawn.savefig(path, metadata={"Software": None})
    plt.close(drawn)


def note(axes: Axes, x: float, y: float, text: str, color: str = SOFT, **more: Any) -> None:
    """Text at data coordinates that stays readable on lines."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.2}
    axes.text(x, y, text, **{"color": color, "fontsize": 9, "bbox": box, "zorder": 6, **more})


def corner(axes: Axes, text: str, where: str = "upper left") -> None:
    """A block of text in a corner of the plot."""
    vertical, horizontal = where.split()
    axes.text(
        0.015 if horizontal == "left" else 0.985,
        0.97 if vertical == "upper" else 0.03,
        text,
        transform=axes.transAxes,
        ha=horizontal,
        va="top" if vertical == "upper" else "bottom",
        fontsize=9,
        color=INK,
        linespacing=1.45,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2.5},
    )


def percent(axis: Axis, digits: int = 0) -> None:
    """Show shares as per cent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{digits}f}%"))


def shares(axis: Axis) -> None:
    """Show shares as per cent with the digits that each tick needs."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def plain_log(axis: Axis, unit: str = "", dense: bool = False) -> None:
    """A log axis with ticks at 1, 2, 5 (where ``dense`` also between) and plain numbers."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0) if dense else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axis.set_minor_formatter(NullFormatter())
