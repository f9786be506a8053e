"""Plots of forecasts against what happened."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from fiduciary_trainer.measure.losses import expected_calibration_error, squared_error
from fiduciary_trainer.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.measure.measurement import LabelKind

SESSIONS_A_YEAR = 252


def predicted_against_realised(rows: Rows, kind: LabelKind, name: str) -> Figure:
    """Scatter with the identity line; for Direction the forecast probabilities of days that rose and days that fell."""
    if kind == "Direction":
        return _probabilities(rows, name)
    subtitle = f"{name}: {len(rows.y):,} out-of-sample rows, {_span(rows)}. On the line, a forecast came true exactly."
    drawn, axes = style.figure("Predicted against realised", subtitle, size=(7.2, 6.4))
    x, y = _readable(rows.prediction, kind), _readable(rows.y, kind)
    if kind == "Volatility":
        axes.set_xscale("log")
        axes.set_yscale("log")
        limits = (float(np.quantile(y, 0.001)), float(np.max(y)) * 1.05)
        for axis in (axes.xaxis, axes.yaxis):
            style.plain_log(axis, "%")
        unit = "volatility, % a year (log scale)"
    else:
        bound = float(np.quantile(np.abs(y), 0.995))
        limits = (-bound, bound)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}%")
        unit = "return, %"
    axes.scatter(x, y, s=9, color=style.MODEL, alpha=max(0.08, min(0.5, 900 / len(x))), linewidths=0)
    axes.plot(limits, limits, color=style.INK, linewidth=1.0)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.set_xlabel(f"Forecast {unit}")
    axes.set_ylabel(f"Realised {unit}")
    _decile_means(axes, rows, kind)
    explained = 1.0 - float(np.mean(squared_error(rows.y, rows.prediction)) / np.var(rows.y))
    scale = "log volatility" if kind == "Volatility" else "return"
    style.corner(
        axes,
        f"R² of {scale} about the sample mean {explained:.3f}\n"
        f"correlation {np.corrcoef(rows.prediction, rows.y)[0, 1] if np.ptp(rows.prediction) else 0.0:.3f}\n"
        "orange: mean of each tenth of the forecasts",
    )
    return drawn


def calibration(rows: Rows, kind: LabelKind, name: str) -> Figure:
    """Are forecasts right on average at each level? Reliability for probabilities, decile means for the rest."""
    if kind == "Direction":
        return _reliability(rows, name)
    forecast, realised, error = deciles(rows)
    unit = "volatility, % a year" if kind == "Volatility" else "return, %"
    average = "geometric mean" if kind == "Volatility" else "mean"
    drawn, axes = style.figure(
        "Calibration by tenth of the forecasts",
        f"{name}: {average} of what was realised, with 95% intervals (days taken as independent within a tenth).",
        size=(7.2, 5.4),
    )
    x = _readable(forecast, kind)
    y, low, high = (_readable(values, kind) for values in (realised, realised - 1.96 * error, realised + 1.96 * error))
    if kind == "Volatility":
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            style.plain_log(axis, "%", dense=True)
    ends = np.array([min(x.min(), low.min()), max(x.max(), high.max())])
    margin = 1.08 if kind == "Volatility" else 1.0
    ends = np.array([ends[0] / margin, ends[1] * margin])
    axes.plot(ends, ends, color=style.INK, linewidth=1.0)
    axes.errorbar(x, y, yerr=np.vstack([y - low, high - y]), fmt="o", color=style.MODEL, markersize=5, elinewidth=1.3)
    at = (ends[0] * ends[1] ** 9) ** 0.1 if kind == "Volatility" else 0.1 * ends[0] + 0.9 * ends[1]
    axes.annotate("perfectly calibrated", (at, at), xytext=(-8, 4), textcoords="offset points", ha="right", va="bottom",
                  color=style.SOFT, fontsize=9)  # fmt: skip
    axes.set_xlabel(f"Forecast {unit} ({average} of the tenth)")
    axes.set_ylabel(f"Realised {unit}")
    return drawn


def deciles(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean forecast, mean outcome and its standard error in ten groups of equally many rows by forecast."""
    groups = np.array_split(np.argsort(rows.prediction, kind="stable"), min(10, len(rows.y)))
    forecast = np.array([rows.prediction[group].mean() for group in groups])
    realised = np.array([rows.y[group].mean() for group in groups])
    error = np.array([rows.y[group].std(ddof=1) / np.sqrt(len(group)) if len(group) > 1 else 0.0 for group in groups])
    return forecast, realised, error


def _decile_means(axes: Axes, rows: Rows, kind: LabelKind) -> None:
    forecast, realised, _ = deciles(rows)
    x, y = _readable(forecast, kind), _readable(realised, kind)
    axes.plot(x, y, "o", color=style.ACCENT, markersize=5.5, markeredgecolor="white", markeredgewidth=0.8)


def _probabilities(rows: Rows, name: str) -> Figure:
    drawn, axes = style.figure(
        "Forecast probabilities, by what happened",
        f"{name}: {len(rows.y):,} out-of-sample days, {_span(rows)}. With skill, the two shapes lie apart.",
        size=(8.4, 4.6),
    )
    low, high = float(rows.prediction.min()), float(rows.prediction.max())
    width = max(high - low, 0.02)
    edges = np.linspace(low - 0.02 * width, low + 1.02 * width, 41)
    tops: list[tuple[float, float, str, str]] = []
    for value, label, color in ((1.0, "days that rose", style.MODEL), (0.0, "days that fell", style.ACCENT)):
        chosen = rows.prediction[rows.y == value]
        if not len(chosen):
            continue
        share, _ = np.histogram(chosen, edges)
        axes.stairs(share / len(chosen), edges, color=color, linewidth=1.8)
        axes.stairs(share / len(chosen), edges, color=color, fill=True, alpha=0.10)
        tops.append((float(chosen.mean()), len(chosen), label, color))
    lines = [f"{label}: {count:,}, mean forecast {mean:.4f}" for mean, count, label, _ in tops]
    for index, (line, (*_, color)) in enumerate(zip(lines, tops, strict=True)):
        axes.text(0.015, 0.95 - 0.065 * index, line, transform=axes.transAxes, color=color, fontsize=9.5,
                  va="top", bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0})  # fmt: skip
    axes.axvline(0.5, color=style.INK, linewidth=1.0)
    axes.set_xlabel("Forecast probability of a rise")
    axes.set_ylabel("Share of days")
    style.percent(axes.yaxis)
    axes.set_ylim(0.0, axes.get_ylim()[1] * 1.18)
    return drawn


def _reliability(rows: Rows, name: str) -> Figure:
    """Tenths of the forecasts rather than of the scale: honest probabilities of daily moves lie close together."""
    forecast, observed, _ = deciles(rows)
    sizes = [len(part) for part in np.array_split(np.arange(len(rows.y)), min(10, len(rows.y)))]
    low, high = wilson(observed, np.array(sizes))
    drawn, (axes, below) = style.figure(
        "Calibration of the probability of a rise",
        f"{name}: observed frequency by tenth of the forecasts, with 95% intervals (Wilson). "
        f"ECE over 10 equal bins {expected_calibration_error(rows.y, rows.prediction):.4f}.",
        rows=2,
        size=(7.2, 6.2),
        sharex=True,
        gridspec_kw={"height_ratios": [3.2, 1.0], "hspace": 0.10},
    )
    span = (float(rows.prediction.min()), float(rows.prediction.max()))
    pad = 0.04 * max(span[1] - span[0], 0.02)
    ends = (max(span[0] - pad, 0.0), min(span[1] + pad, 1.0))
    axes.plot(ends, ends, color=style.INK, linewidth=1.0)
    base = float(rows.y.mean())
    axes.axhline(base, color=style.BASELINE, linewidth=1.0)
    axes.annotate(f"base rate {base:.3f}", (ends[0], base), xytext=(6, 3), textcoords="offset points",
                  color=style.SOFT, fontsize=9)  # fmt: skip
    axes.annotate("perfectly calibrated", (ends[1], ends[1]), xytext=(-34, 0), textcoords="offset points", ha="right",
                  va="top", color=style.SOFT, fontsize=9)  # fmt: skip
    axes.errorbar(forecast, observed, yerr=np.vstack([observed - low, high - observed]), fmt="o", color=style.MODEL,
                  markersize=5.5)  # fmt: skip
    axes.set_ylabel("Observed frequency of a rise")
    axes.set_xlim(*ends)
    axes.set_ylim(min(float(low.min()), ends[0]) - 0.01, max(float(high.max()), ends[1]) + 0.01)
    below.hist(rows.prediction, bins=np.linspace(*ends, 41), color=style.MODEL, alpha=0.75)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.set_ylabel("Days")
    below.set_xlabel("Forecast probability of a rise")
    return drawn


def wilson(share: NDArray[np.float64], count: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% interval of a share of ``count`` (Wilson 1927): stays within 0 and 1 where few were counted."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # At a share of exactly 0 or 1 the bound is the share, up to a rounding error that may not turn its sign.
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def _readable(values: NDArray[np.float64], kind: LabelKind) -> NDArray[np.float64]:
    """Annualised volatility in per cent from the log of a daily one; returns in per cent."""
    return 100.0 * (np.exp(values) * np.sqrt(SESSIONS_A_YEAR) if kind == "Volatility" else values)


def _span(rows: Rows) -> str:
    first, last = (str(np.datetime64(day, "D")) for day in (rows.days[0], rows.days[-1]))
    return f"{first} to {last}"


def fold_bounds(rows: Rows) -> list[tuple[int, np.datetime64, np.datetime64]]:
    """Number, first and last day of each fold."""
    result = []
    for number, group in itertools.groupby(range(len(rows.days)), key=lambda day: int(rows.fold_of_day[day])):
        days = list(group)
        result.append((number, rows.days[days[0]], rows.days[days[-1]]))
    return result
