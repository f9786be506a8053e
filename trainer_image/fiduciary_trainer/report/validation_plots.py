"""Plots of the validation: what each feature carries, where errors lie, how results scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.measure.measurement import SKILLS
from fiduciary_trainer.report import style
from fiduciary_trainer.report.path_plots import BASELINE_NAMES, interval, is_usable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.measure.measurement import LabelKind

FEATURES_SHOWN = 20
FEWEST_IN_A_YEAR = 20
CALM_SESSIONS = 22


def importance(values: Mapping[str, Mapping[str, float]], name: str) -> Figure | None:
    """Squared error that shuffling each feature adds, with the spread over folds. None without features."""
    if not values:
        return None
    chosen = sorted(values.items(), key=lambda item: item[1]["share"])[-FEATURES_SHOWN:]
    more = f" The {FEATURES_SHOWN} largest of {len(values)}." if len(values) > FEATURES_SHOWN else ""
    drawn, axes = style.figure(
        "Permutation importance",
        f"{name}: how much the squared error out of sample rises when one feature's days are shuffled. Bars: mean over "
        f"folds, lines: one standard deviation between folds. Features that say the same share it.{more}",
        size=(7.6, 1.5 + 0.27 * len(chosen)),
    )
    drawn.subplots_adjust(left=0.2)
    places = np.arange(len(chosen))
    shares = np.array([each["share"] for _, each in chosen])
    spread = np.array([each["sd"] for _, each in chosen])
    axes.barh(places, shares, height=0.62, color=style.MODEL, alpha=0.85)
    axes.hlines(places, shares - spread, shares + spread, color=style.INK, linewidth=1.1)
    axes.axvline(0.0, color=style.INK, linewidth=0.9)
    axes.set_yticks(places, [feature for feature, _ in chosen])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    style.shares(axes.xaxis)
    axes.set_xlabel("Squared error added")
    return drawn


def residuals(rows: Rows, kind: LabelKind, name: str) -> Figure:
    """Mean error over time, its distribution beside a normal one, and its autocorrelation."""
    error = rows.daily(rows.y - rows.prediction)
    what = {"Volatility": "log volatility", "Direction": "probability", "Return": "return"}[kind]
    drawn, grid = style.figure(
        "Residuals",
        f"{name}: outcome less forecast of the {what}, one value a day. Left: mean of three months with 95% interval. "
        "Middle: distribution, line: normal. Right: autocorrelation; dashed: 95% bound of independent errors.",
        columns=3,
        size=(10.4, 4.0),
        gridspec_kw={"width_ratios": [1.5, 1.0, 1.0]},
    )
    drawn.subplots_adjust(wspace=0.3, left=0.085)
    left, middle, right = grid
    quarters = rows.days.astype("datetime64[M]").astype(int) // 3
    bounds = np.flatnonzero(np.diff(quarters)) + 1
    for days, part in zip(np.split(rows.days, bounds), np.split(error, bounds), strict=True):
        if len(part) < FEWEST_IN_A_YEAR:
            continue
        at = days[len(days) // 2]
        half = 1.96 * float(np.std(part, ddof=1)) / len(part) ** 0.5
        left.plot([at, at], [part.mean() - half, part.mean() + half], color=style.MODEL, linewidth=1.0)
        left.plot([at], [part.mean()], "o", color=style.MODEL, markersize=3)
    left.axhline(0.0, color=style.INK, linewidth=0.9)
    left.tick_params(axis="x", labelsize=8)
    left.xaxis.set_major_locator(style.years(rows.days))
    z = (error - error.mean()) / (float(error.std()) or 1.0)
    edges = np.linspace(-4.5, 4.5, 46)
    middle.hist(np.clip(z, -4.5, 4.5), bins=edges, density=True, color=style.MODEL, alpha=0.55)
    if kind != "Direction":
        middle.plot(edges, np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi), color=style.INK, linewidth=1.1)
    middle.set_yticks([])
    middle.set_xlabel("Standard deviations")
    lags = np.arange(1, 22)
    bound = 1.96 / len(error) ** 0.5
    values = [float(np.corrcoef(error[lag:], error[:-lag])[0, 1]) if np.ptp(error) else 0.0 for lag in lags]
    right.vlines(lags, 0.0, values, color=style.MODEL, linewidth=2.2)
    right.axhline(0.0, color=style.INK, linewidth=0.9)
    for side in (-bound, bound):
        right.axhline(side, color=style.SOFT, linewidth=0.9, linestyle=(0, (3, 2)))
    right.set_xlabel("Lag, sessions")
    right.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return drawn


def regimes(rows: Rows, kind: LabelKind, name: str) -> Figure | None:
    """Skill against the first baseline by what the market had been doing before the forecast. None without returns."""
    baseline = SKILLS[kind][0]
    groups = market_regimes(rows)
    if not groups or not is_usable(rows, baseline):
        return None
    loss = rows.daily(squared_error(rows.y, rows.prediction))
    rival = rows.daily(squared_error(rows.y, rows.baselines[baseline]))
    drawn, axes = style.figure(
        "Skill by market regime",
        f"{name}: skill against {BASELINE_NAMES[baseline]} on days grouped by what was known before them: volatility "
        f"of the {CALM_SESSIONS} sessions before (thirds), and whether the market stood 10% or more below its high. "
        "95% intervals (Newey-West within the group's days).",
        size=(8.6, 1.6 + 0.42 * len(groups)),
    )
    drawn.subplots_adjust(left=0.30)
    places = np.arange(len(groups))[::-1]
    for place, (_, days) in zip(places, groups, strict=True):
        interval(axes, loss[days], rival[days], float(place), style.MODEL)
    axes.axvline(0.0, color=style.INK, linewidth=0.9)
    axes.set_yticks(places, [f"{label}  ({int(days.sum()):,})" for label, days in groups])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    style.shares(axes.xaxis)
    axes.set_xlabel("Skill")
    return drawn


def market_regimes(rows: Rows) -> list[tuple[str, NDArray[np.bool_]]]:
    """Groups of days by what the returns before them say; empty where returns are missing."""
    if not bool(np.all(np.isfinite(rows.returns))) or len(rows.days) < 12 * CALM_SESSIONS:
        return []
    market = rows.daily(rows.returns)  # of the session after each day
    known = np.concatenate([[np.nan], market[:-1]])  # of the session that ends at each day
    squares = np.concatenate([[0.0], np.cumsum(np.nan_to_num(known) ** 2)])
    past = np.full(len(market), np.nan)
    past[CALM_SESSIONS:] = squares[CALM_SESSIONS + 1 :] - squares[1 : len(market) - CALM_SESSIONS + 1]
    level = np.cumprod(1.0 + np.nan_to_num(known))
    fallen = level < 0.9 * np.maximum.accumulate(level)
    there = np.isfinite(past)
    low, high = np.quantile(past[there], [1 / 3, 2 / 3])
    groups = [
        ("calm", there & (past <= low)),
        ("ordinary", there & (past > low) & (past <= high)),
        ("turbulent", there & (past > high)),
        ("near its high", ~fallen),
        ("10% below its high", fallen),
    ]
    return [(label, days) for label, days in groups if int(days.sum()) >= 3 * CALM_SESSIONS]


def skill_by_year(by_year: Mapping[str, Mapping[str, float]], kind: LabelKind, name: str) -> Figure | None:
    """Skill against each tuned baseline in each calendar year as a coloured table."""
    years = [year for year, values in by_year.items() if values["days"] >= FEWEST_IN_A_YEAR]
    baselines = [each for each in SKILLS[kind] if all(each in by_year[year] for year in years)]
    if not years or not baselines:
        return None
    table = np.array([[by_year[year][each] for year in years] for each in baselines])
    drawn, axes = style.figure(
        "Skill against each tuned baseline, by year",
        f"{name}: 1 - squared error / that of the baseline, per cent. Blue: better than the baseline, orange: worse.",
        size=(max(6.4, 1.9 + 0.56 * len(years)), 1.75 + 0.42 * len(baselines)),
    )
    drawn.subplots_adjust(left=1.75 / drawn.get_figwidth())
    reach = max(float(np.quantile(np.abs(table), 0.9)), 1e-3)
    axes.imshow(table, cmap=style.diverging(), vmin=-reach, vmax=reach, aspect="auto")
    for row in range(len(baselines)):
        for column in range(len(years)):
            value = 100.0 * table[row, column]
            digits = 1 if abs(value) < 9.95 else 0
            strong = abs(table[row, column]) > 0.6 * reach
            axes.text(column, row, f"{value:+.{digits}f}", ha="center", va="center", fontsize=8.5,
                      color="white" if strong else style.INK)  # fmt: skip
    axes.set_xticks(np.arange(len(years)), years)
    axes.set_yticks(np.arange(len(baselines)), [BASELINE_NAMES[each] for each in baselines])
    axes.tick_params(length=0, labelsize=8.5)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return drawn


def paths(combinatorial: Mapping[str, Any], walk_forward: Mapping[str, float | None], name: str) -> Figure | None:
    """Each path of combinatorial purged cross-validation beside the walk-forward's value. None where it was not run."""
    metrics: Mapping[str, Any] = combinatorial.get("metrics", {})
    if not metrics:
        return None
    titles = {"sharpe": "Sharpe ratio a day", "max_drawdown": "largest drawdown"}
    drawn, grid = style.figure(
        "Paths of combinatorial purged cross-validation",
        f"{name}: {combinatorial['splits']} trainings give {combinatorial['paths']} paths over the whole history. "
        "Blue: one path each; orange: the walk-forward, which gates read. Paths share training rows: their spread is "
        "no standard error.",
        columns=len(metrics),
        size=(max(7.6, 3.4 * len(metrics) + 1.2), 2.9),
        squeeze=False,
    )
    drawn.subplots_adjust(wspace=0.22)
    for axes, (metric, values) in zip(grid[0], metrics.items(), strict=True):
        points = np.asarray(values["values"])
        lift = np.linspace(-0.25, 0.25, len(points)) if len(points) > 1 else np.zeros(1)
        axes.plot(points, lift, "o", color=style.MODEL, alpha=0.8, markersize=6)
        known = walk_forward.get(metric)
        if known is not None:
            axes.axvline(known, color=style.ACCENT, linewidth=1.6)
        axes.axvline(0.0, color=style.INK, linewidth=0.8)
        axes.set_ylim(-0.6, 0.6)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        baseline = metric.removesuffix("_skill")
        axes.set_title(titles.get(metric) or f"skill against {BASELINE_NAMES[baseline]}", loc="left", fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if metric != "sharpe":
            style.shares(axes.xaxis)
    return drawn
