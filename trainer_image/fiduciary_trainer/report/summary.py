"""The card's first paragraph: what the numbers say, in sentences that a risk officer can read aloud."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_trainer.measure.measurement import SKILLS

if TYPE_CHECKING:
    from fiduciary_trainer.measure import Metric
    from fiduciary_trainer.report.report import Report

SESSIONS_A_YEAR = 252
IN_WORDS = {
    "ewma": "an EWMA tuned on each training fold",
    "har": "HAR",
    "ols": "least squares on the same features",
    "persistence": "persistence",
    "base_rate": "the base rate",
    "mean": "the training mean",
}


def sentences(report: Report) -> list[str]:
    """Each states what was measured, with its interval; none says whether it suffices."""
    rows = report.rows
    if not np.all(np.isfinite(rows.prediction)) or len(rows.days) < 2:
        return ["Nothing could be measured; the last section says why."]
    first, last = (str(np.datetime64(day, "D")) for day in (rows.days[0], rows.days[-1]))
    said = [f"Measured out of sample on {len(rows.days):,} days, {first} to {last}."]
    said += [_skill(report, baseline) for baseline in SKILLS[report.kind]]
    said += _together(report)
    said += _quantiles(report)
    if report.kind == "Direction":
        said += _direction(report)
    if report.kind != "Volatility":
        said += _money(report)
    return [sentence for sentence in said if sentence]


def _skill(report: Report, baseline: str) -> str:
    metric = report.measurement.metrics.get(f"{baseline}_skill")
    if metric is None or metric.estimate is None:
        return ""
    between = ""
    if metric.se is not None:
        low, high = (_size(metric.estimate + side * 1.96 * metric.se) for side in (-1.0, 1.0))
        between = f" (95% interval: {low} to {high})"
    folds = [value for value in metric.folds or () if value is not None]
    better = f"; better in {sum(value > 0 for value in folds)} of {len(folds)} periods" if folds else ""
    rival = IN_WORDS[baseline]
    return f"Its squared error is {_size(metric.estimate)} than that of {rival}{between}{better}."


def _size(skill: float) -> str:
    return f"{abs(skill):.1%} {'smaller' if skill >= 0.0 else 'larger'}"


def _together(report: Report) -> list[str]:
    included = report.validation.get("comparison", {}).get("confidenceSet", {}).get("included")
    if not included:
        return []
    rivals = [IN_WORDS.get(name, name) for name in included if name != "model"]
    if "model" not in included:
        return [f"The data tell it apart from the best forecast, and it is worse than {_list(rivals)}."]
    if not rivals:
        return ["The data tell it apart from every baseline: no other forecast is in the 95% confidence set."]
    return [f"The data cannot tell it apart from {_list(rivals)} (95% model confidence set)."]


def _quantiles(report: Report) -> list[str]:
    found = report.validation.get("quantiles")
    if not found:
        return []
    said: list[str] = []
    if found["intervals"]:
        widest = found["intervals"][0]
        between = "" if "low" not in widest else f" (95% interval: {widest['low']:.1%} to {widest['high']:.1%})"
        said.append(
            f"Its {widest['from']:g} to {widest['to']:g} interval is meant to hold {widest['nominal']:.0%} of the "
            f"outcomes and held {widest['observed']:.1%}{between}."
        )
    metric = report.measurement.metrics["filtered_pinball_skill"]
    if metric.estimate is not None:
        interval = ""
        if metric.se is not None:
            low, high = (_size(metric.estimate + side * 1.96 * metric.se) for side in (-1.0, 1.0))
            interval = f" (95% interval: {low} to {high})"
        said.append(
            f"The pinball loss of its quantiles is {_size(metric.estimate)} than that of filtered historical "
            f"simulation{interval}."
        )
    return said


def _direction(report: Report) -> list[str]:
    metric = report.measurement.metrics.get("accuracy")
    if metric is None or metric.estimate is None:
        return []
    rises = float(report.rows.daily(report.rows.y).mean())
    always = max(rises, 1.0 - rises)
    return [
        f"The more probable side came true on {metric.estimate:.1%} of the days{_interval(metric, 1)}; always saying "
        f"{'up' if rises >= 0.5 else 'down'} would have been right on {always:.1%}."
    ]


def _money(report: Report) -> list[str]:
    record = report.validation.get("trackRecord", {})
    if "sharpe" not in record:
        return []
    root = math.sqrt(SESSIONS_A_YEAR)
    needed = record["2012"]["minTrackRecord"]
    length = (
        "no record, however long, would show it to be above 0"
        if not math.isfinite(needed)
        else f"{needed / SESSIONS_A_YEAR:,.1f} years of such days would show it to be above 0; there are "
        f"{record['periods'] / SESSIONS_A_YEAR:,.1f}"
    )
    drawdown = report.measurement.metrics["max_drawdown"].estimate
    return [
        f"On paper and after costs the rule earns a Sharpe ratio of {root * record['sharpe']:.2f} a year, buy-and-hold "
        f"{root * record['buyAndHoldSharpe']:.2f}; {length}.",
        f"Its largest drawdown was {drawdown:.0%}." if drawdown is not None else "",
    ]


def _interval(metric: Metric, digits: int = 1) -> str:
    if metric.estimate is None or metric.se is None:
        return ""
    low, high = metric.estimate - 1.96 * metric.se, metric.estimate + 1.96 * metric.se
    return f" (95% interval {low:.{digits}%} to {high:.{digits}%})"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
