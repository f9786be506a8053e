"""Plots of quantiles: how often they hold, and the last sessions with their interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_trainer.report import style
from fiduciary_trainer.report.quantile_card import RIVALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.measure.measurement import LabelKind
    from fiduciary_trainer.measure.rows import Quantiles

SESSIONS = 250
MARKS = {"residual": (style.BASELINE, "s"), "filtered": (style.SECOND, "^")}


def coverage(found: Mapping[str, Any], name: str) -> Figure:
    """Share of outcomes at or below each quantile, less its level."""
    levels = found["levels"]
    drawn, axes = style.figure(
        "How often quantiles hold",
        f"{name}: share of outcomes at or below each quantile out of sample, less the level that it is meant to have. "
        "Lines: 95% interval that allows for dependence between sessions. On the zero line a quantile is right; below "
        "it, too many outcomes lie above.",
    )
    places = np.arange(len(levels))
    for place, each in zip(places, levels, strict=True):
        if "low" in each:
            ends = [each["low"] - each["level"], each["high"] - each["level"]]
            axes.plot([place, place], ends, color=style.MODEL, linewidth=1.6)
    axes.plot(
        places,
        [each["observed"] - each["level"] for each in levels],
        "o",
        color=style.MODEL,
        markersize=6,
        label="the model",
    )
    for rival, (colour, mark) in MARKS.items():
        shift = 0.14 if rival == "residual" else 0.26
        off = [each["baselines"][rival]["observed"] - each["level"] for each in levels]
        axes.plot(places + shift, off, mark, color=colour, markersize=5, label=RIVALS[rival])
    axes.axhline(0.0, color=style.INK, linewidth=0.9)
    axes.set_xticks(places, [f"{each['level']:g}" for each in levels])
    axes.set_xlim(-0.5, len(levels) - 0.3)
    axes.set_xlabel("Level")
    style.shares(axes.yaxis)
    axes.legend(loc="best", fontsize=9)
    return drawn


def last_sessions(rows: Rows, forecast: Quantiles, kind: LabelKind, name: str) -> Figure:
    """The outermost quantiles, what is between them, the point forecast and the outcomes of one instrument."""
    names, counts = np.unique(rows.entity, return_counts=True)
    chosen = names[int(np.argmax(counts))]
    own = np.flatnonzero(rows.entity == chosen)[-SESSIONS:]
    of = f" of {chosen}" if chosen else ""
    shown = np.exp if kind == "Volatility" else np.asarray
    dates, y, values = rows.dates[own], shown(rows.y[own]), shown(forecast.values[own])
    low, high = forecast.levels[0], forecast.levels[-1]
    out = (rows.y[own] <= forecast.values[own, 0]) | (rows.y[own] > forecast.values[own, -1])
    drawn, axes = style.figure(
        "The last sessions and their interval",
        f"{name}: outcomes{of} of the last {len(own)} out-of-sample sessions (dots), the point forecast (line), and "
        f"the quantiles {low:g} to {high:g} (band). Orange: outside, {out.mean():.1%} of those shown, where "
        f"{1.0 - (high - low):.0%} are expected.",
        size=(10.4, 4.6),
    )
    axes.fill_between(dates, values[:, 0], values[:, -1], color=style.MODEL, alpha=0.18, linewidth=0)
    if len(forecast.levels) > 3:
        axes.fill_between(dates, values[:, 1], values[:, -2], color=style.MODEL, alpha=0.18, linewidth=0)
    axes.plot(dates, shown(rows.prediction[own]), color=style.MODEL, linewidth=1.2)
    axes.plot(dates[~out], y[~out], ".", color=style.INK, markersize=3.5)
    axes.plot(dates[out], y[out], "o", color=style.ACCENT, markersize=4.5)
    if kind == "Volatility":
        axes.set_yscale("log")
        style.plain_log(axes.yaxis)
        axes.set_ylabel("Volatility of a session (log scale)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    else:
        axes.set_ylabel("Return")
        style.shares(axes.yaxis)
    axes.tick_params(axis="x", labelsize=8)
    return drawn
