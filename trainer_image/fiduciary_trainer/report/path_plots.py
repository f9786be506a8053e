"""Plots over time: learning, skill by fold, money."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator

from fiduciary_trainer.measure import pnl
from fiduciary_trainer.measure.hac import TooShort, skill, skill_se
from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.measure.measurement import SKILLS, is_up
from fiduciary_trainer.report import style
from fiduciary_trainer.report.forecast_plots import fold_bounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.measure.measurement import LabelKind

BASELINE_NAMES = {
    "ewma": "tuned EWMA",
    "har": "HAR",
    "ols": "OLS, same features",
    "persistence": "persistence",
    "base_rate": "base rate",
    "mean": "training mean",
}


def learning_curves(
    history: Sequence[Sequence[Mapping[str, float | bool]]], loss_name: str, name: str
) -> Figure | None:
    """Loss by epoch in every fold, inner validation and training, the kept epoch marked. None without epochs."""
    if not any(history):
        return None
    columns = min(3, len(history))
    rows = math.ceil(len(history) / columns)
    drawn, grid = style.figure(
        "Learning curves by fold",
        f"{name}: {loss_name} by epoch. Blue: inner validation, grey: training. "
        "Dot: the epoch whose weights are kept (without one, the linear start).",
        rows=rows,
        columns=columns,
        size=(9.2, 1.15 + 2.25 * rows),
        squeeze=False,
        sharex=True,
    )
    drawn.subplots_adjust(wspace=0.28, hspace=0.34)
    for fold, axes in enumerate(grid.ravel()):
        if fold >= len(history):
            axes.set_visible(False)
            continue
        for member in sorted({int(point["member"]) for point in history[fold]}):
            own = [point for point in history[fold] if int(point["member"]) == member]
            epochs = [int(point["epoch"]) for point in own]
            axes.plot(epochs, [point["train_loss"] for point in own], color=style.BASELINE, linewidth=1.1)
            axes.plot(epochs, [point["inner_loss"] for point in own], color=style.MODEL, linewidth=1.4)
            best = [point for point in own if point["best"]][-1:]  # each epoch that was the best so far is marked
            axes.plot(
                [p["epoch"] for p in best], [p["inner_loss"] for p in best], "o", color=style.ACCENT, markersize=5
            )
        axes.set_title(f"Fold {fold + 1}", loc="left", fontsize=9.5, color=style.INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=8)
        if fold >= len(history) - columns:
            axes.set_xlabel("Epoch")
            axes.tick_params(labelbottom=True)
        if fold % columns == 0:
            axes.set_ylabel(loss_name.capitalize())
    return drawn


def skill_by_fold(rows: Rows, kind: LabelKind, name: str) -> Figure:
    """Skill against every baseline in each fold and over all, with 95% intervals (Newey-West, 20 lags)."""
    baselines = [baseline for baseline in SKILLS[kind] if is_usable(rows, baseline)]
    drawn, grid = style.figure(
        "Skill against tuned baselines, by fold",
        f"{name}: 1 - squared error / that of the baseline, 95% intervals. Right of 0: better than the baseline.",
        columns=max(len(baselines), 1),
        size=(9.6, 1.75 + 0.33 * (len(rows.folds) + 1)),
        squeeze=False,
        sharey=True,
    )
    drawn.subplots_adjust(wspace=0.12, left=0.155)
    bounds = fold_bounds(rows)
    labels = [f"{str(first)[:7]} to {str(last)[:7]}" for _, first, last in bounds] + ["all folds"]
    positions = np.arange(len(labels))[::-1].astype(float)
    positions[-1] -= 0.35
    everything = np.ones(len(rows.days), dtype=bool)
    loss = rows.daily(squared_error(rows.y, rows.prediction))
    for axes, baseline in zip(grid[0], baselines, strict=False):
        against = rows.daily(squared_error(rows.y, rows.baselines[baseline]))
        chosen = [rows.fold_of_day == number for number, *_ in bounds] + [everything]
        for index, (position, days) in enumerate(zip(positions, chosen, strict=True)):
            whole = index == len(bounds)
            interval(axes, loss[days], against[days], position, style.INK if whole else style.MODEL)
        axes.axvline(0.0, color=style.INK, linewidth=0.9)
        axes.axhline(positions[-1] + 0.67, color="#9A9A9A", linewidth=0.8)
        axes.set_title(f"against {BASELINE_NAMES[baseline]}", loc="left", fontsize=9.5)
        axes.set_yticks(positions, labels)
        axes.set_ylim(positions[-1] - 0.55, positions[0] + 0.55)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0)
        style.percent(axes.xaxis, _digits(axes))
        axes.spines["left"].set_visible(False)
    return drawn


def _digits(axes: Axes) -> int:
    low, high = axes.get_xlim()
    return 0 if high - low > 0.08 else 1


def is_usable(rows: Rows, baseline: str) -> bool:
    """Whether a baseline predicts every row."""
    return baseline in rows.baselines and bool(np.all(np.isfinite(rows.baselines[baseline])))


def interval(axes: Axes, loss: NDArray[np.float64], against: NDArray[np.float64], y: float, color: str) -> None:
    """Skill over some days as a dot at height ``y`` with its 95% interval."""
    if against.mean() == 0.0:
        return
    value = skill(loss, against)
    axes.plot([value], [y], "o", color=color, markersize=5)
    try:
        half = 1.96 * skill_se(loss, against)
    except TooShort:
        return
    axes.plot([value - half, value + half], [y, y], color=color, linewidth=1.5)


def advantage(rows: Rows, kind: LabelKind, name: str) -> Figure:
    """Cumulative difference of squared errors to the first baseline: rises while the model is better."""
    baseline = SKILLS[kind][0]
    loss = rows.daily(squared_error(rows.y, rows.prediction))
    against = rows.daily(squared_error(rows.y, rows.baselines[baseline]))
    total = np.cumsum(against - loss)
    drawn, axes = style.figure(
        f"Cumulative advantage over {BASELINE_NAMES[baseline]}",
        f"{name}: sum of (squared error of the baseline - own) of log volatility. Rising: the model is ahead.",
        size=(9.2, 4.6),
    )
    axes.axhline(0.0, color=style.INK, linewidth=0.9)
    axes.plot(rows.days, total, color=style.MODEL)
    axes.fill_between(rows.days, total, 0.0, color=style.MODEL, alpha=0.08, linewidth=0)
    _fold_lines(axes, rows)
    axes.set_ylabel("Squared error saved, log volatility²")
    _label_end(axes, rows, float(total[-1]), f"{total[-1]:+.1f}", style.MODEL)
    _dates(axes)
    return drawn


def profit(rows: Rows, kind: LabelKind, name: str, cost_bps: float, horizon: int) -> Figure:
    """Value of one unit of capital after costs beside buy-and-hold, and the drawdown of both beneath."""
    book = pnl.profit_and_loss(rows, is_up(rows, kind), cost_bps, horizon)
    drawn, (axes, below) = style.figure(
        "Paper profit and loss after costs, out of sample",
        f"{name}: long what is forecast to rise, else cash, equal weights; {cost_bps:g} bp per unit traded.",
        rows=2,
        size=(9.2, 6.0),
        sharex=True,
        gridspec_kw={"height_ratios": [2.6, 1.0], "hspace": 0.09},
    )
    drawn.subplots_adjust(right=0.86)
    for net, color in ((book.hold, style.BASELINE), (book.net, style.MODEL)):
        value = pnl.equity(net)
        axes.plot(rows.days, value, color=color)
        below.plot(rows.days, -pnl.drawdown(net), color=color, linewidth=1.1)
    below.fill_between(rows.days, -pnl.drawdown(book.net), 0.0, color=style.MODEL, alpha=0.10, linewidth=0)
    ends = {"model": float(pnl.equity(book.net)[-1]), "buy and hold": float(pnl.equity(book.hold)[-1])}
    gap = 0.15 * (axes.get_ylim()[1] - axes.get_ylim()[0])
    low, high = sorted(ends, key=lambda key: ends[key])
    places = {low: min(ends[low], ends[high] - gap), high: ends[high]}
    for label, color in (("buy and hold", style.SOFT), ("model", style.MODEL)):
        axes.text(1.012, places[label], f"{label}\n{ends[label]:.2f}", transform=axes.get_yaxis_transform(),
                  color=color, fontsize=9, va="center")  # fmt: skip
    for panel in (axes, below):
        _fold_lines(panel, rows, numbers=panel is axes)
    axes.set_ylabel("Value of 1 unit of capital")
    below.set_ylabel("Drawdown")
    style.percent(below.yaxis)
    worst = float(pnl.drawdown(book.net).max())
    below.text(1.012, -worst, f"model's worst\n{-100 * worst:.0f}%", transform=below.get_yaxis_transform(),
               color=style.MODEL, fontsize=9, va="bottom")  # fmt: skip
    _dates(below)
    return drawn


def _fold_lines(axes: Axes, rows: Rows, numbers: bool = True) -> None:
    for number, first, last in fold_bounds(rows):
        if number:
            axes.axvline(first, color="#BDBDBD", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if numbers and not number:  # room for the numbers above whatever is drawn
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.07 * (high - low))
        if numbers:
            middle = first + (last - first) / 2
            axes.text(middle, 0.985, f"fold {number + 1}", transform=axes.get_xaxis_transform(), ha="center", va="top",
                      fontsize=8, color=style.SOFT)  # fmt: skip
    axes.margins(x=0.01)


def _label_end(axes: Axes, rows: Rows, value: float, text: str, color: str) -> None:
    axes.annotate(text, (rows.days[-1], value), xytext=(5, 0), textcoords="offset points", color=color, va="center",
                  fontsize=9.5, fontweight="bold", annotation_clip=False)  # fmt: skip
    axes.figure.subplots_adjust(right=0.94)


def _dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
