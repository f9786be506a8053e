"""Sections of the card about the validation: comparison, scatter, track record, calibration, splits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.report.path_plots import BASELINE_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_trainer.report.report import Report


def sections(report: Report) -> list[str]:
    """Markdown lines; nothing where no validation was written."""
    found = report.validation
    if not found:
        return []
    lines = [
        "## Validation",
        "",
        "Every split is in `validation/splits.json`, these numbers in `validation/results.json`.",
    ]
    lines += _comparison(found["comparison"])
    lines += _combinatorial(found["combinatorial"])
    if "trackRecord" in found:
        lines += _track_record(found["trackRecord"])
    if "calibration" in found:
        lines += _calibration(found["calibration"])
    lines += _intervals(found["intervals"])
    r2 = found["r2OutOfSample"]
    if "e" in r2:
        error = "" if r2["se"] is None else f" ± {1.96 * r2['se']:.4f}"
        lines += ["", f"R² out of sample against the training mean: {r2['e']:.4f}{error} (95%)."]
    if "search" in found:
        lines += _search(found["search"])
    lines += ["", f"Probability of backtest overfitting: {_overfitting(found['overfitting'])}"]
    return lines


def _comparison(said: Mapping[str, Any]) -> list[str]:
    confidence = said["confidenceSet"]
    p = confidence.get("p", {})
    lines = ["", "### Against the baselines", ""]
    lines += [
        "Diebold-Mariano (1995): t of the mean daily difference of squared errors, Newey-West with 20 lags; positive: "
        "the model is better. Model confidence set (Hansen, Lunde and Nason 2011): what has p of at least .05 cannot "
        "be told from the best.",
        "",
        "| forecast | t | p, two-sided | p in the confidence set |",
        "|---|---:|---:|---:|",
        f"| the model | | | {p_value(p.get('model'))} |",
    ]
    for name, pair in said["dieboldMariano"].items():
        t = f"{pair['t']:.2f}" if pair.get("t") is not None else pair.get("unavailable", "identical")
        lines.append(f"| {BASELINE_NAMES.get(name, name)} | {t} | {p_value(pair.get('p'))} | {p_value(p.get(name))} |")
    if "unavailable" in confidence:
        lines += ["", f"Model confidence set unavailable: {confidence['unavailable']}."]
    return lines


def _combinatorial(said: Mapping[str, Any]) -> list[str]:
    if "unavailable" in said:
        return ["", f"Combinatorial purged cross-validation: not run ({said['unavailable']})."]
    lines = ["", "### Paths of combinatorial purged cross-validation", ""]
    lines += [
        f"{said['splits']} trainings, {said['paths']} paths; {said['note']}.",
        "",
        "| number | mean | standard deviation | smallest | largest |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, values in said["metrics"].items():
        spread = "" if values["sd"] is None else f"{values['sd']:.4g}"
        lines.append(f"| {name} | {values['mean']:.4g} | {spread} | {values['min']:.4g} | {values['max']:.4g} |")
    return lines


def _track_record(said: Mapping[str, Any]) -> list[str]:
    if "unavailable" in said:
        return ["", f"Track record unavailable: {said['unavailable']}."]
    old, new = said["2012"], said["2025"]
    deflated = ", ".join(
        f"{p_value(value)} for {trials}" for trials, value in said["deflated"].items() if int(trials) <= 100
    )
    return [
        "",
        "### Track record",
        "",
        f"Sharpe ratio {said['sharpe']:.4f} a day over {said['periods']:,} days (buy-and-hold "
        f"{said['buyAndHoldSharpe']:.4f}), skewness {said['skew']:.2f}, kurtosis {said['kurtosis']:.1f}, lag-1 "
        f"autocorrelation {said['autocorrelation']:.3f}.",
        "",
        "| | 2012: Bailey, López de Prado | 2025: López de Prado, Lipton, Zoonekynd |",
        "|---|---:|---:|",
        f"| probability that the true ratio is above 0 | {p_value(old['probabilistic'])} "
        f"| {p_value(new['probabilistic'])} |",
        f"| above buy-and-hold's | {p_value(old['probabilisticAgainstBuyAndHold'])} | |",
        f"| shortest record for above 0, days | {_days(old['minTrackRecord'])} | {_days(new['minTrackRecord'])} |",
        f"| for above buy-and-hold's | {_days(old['minTrackRecordAgainstBuyAndHold'])} | |",
        "",
        f"Deflated Sharpe ratio by the number of configurations tried: {deflated}. How many were tried is counted by "
        "the operator over the model's whole life, and stands in the ModelDecision.",
    ]


def _calibration(said: Mapping[str, Any]) -> list[str]:
    if "unavailable" in said:
        return ["", f"Recalibration unavailable: {said['unavailable']}."]
    before, after = said["before"], said["after"]
    return [
        "",
        "### Recalibration",
        "",
        f"{said['method']}, on {said['rows']:,} rows of the folds after the first. The version is not recalibrated.",
        "",
        "| | as it is | recalibrated |",
        "|---|---:|---:|",
        f"| expected calibration error | {before['ece']:.4f} | {after['ece']:.4f} |",
        f"| Brier score | {before['brier']:.5f} | {after['brier']:.5f} |",
        f"| log loss | {before['logLoss']:.5f} | {after['logLoss']:.5f} |",
    ]


def _intervals(said: Mapping[str, Any]) -> list[str]:
    known = [(name, each) for name, each in said.items() if "low" in each]
    if not known:
        return []
    shown = "; ".join(f"{name} {each['low']:.4g} to {each['high']:.4g}" for name, each in known)
    one = known[0][1]
    return [
        "",
        f"95% bootstrap intervals (stationary, {one['replications']:,} replications, blocks of {one['block']} "
        f"sessions): {shown}. For a drawdown: what another order of such days would have cost.",
    ]


def _search(said: Mapping[str, Any]) -> list[str]:
    ends = f"{said['complete']} came to their end, {said['pruned']} were given up, {said['failed']} failed"
    lines = ["", "### Search", ""]
    lines += [
        f"{said['trials']} trials ({said['sampler']}) inside the training rows of each fit, by their loss on splits "
        f"there; no test row has a say in what is tested on it. Of those of the final model {ends}.",
        "",
        "| fit | selected | trial | loss inside |",
        "|---|---|---:|---:|",
    ]
    for each in said["selected"]:
        values = ", ".join(f"{name} {value}" for name, value in each["configuration"].items())
        lines.append(f"| {each['for'].replace('_', ' ')} | {values} | {each['trial']} | {each['loss']:.5g} |")
    if said["failures"]:
        lines += ["", "Failed: " + "; ".join(f"{reason} ({count})" for reason, count in said["failures"].items()) + "."]
    return lines


def _overfitting(said: Mapping[str, Any]) -> str:
    if "unavailable" in said:
        return f"unavailable, {said['unavailable']}."
    return (
        f"{said['probability']:.2f} over {said['trials']} trials ({said['choices']:,} choices of half of the blocks; "
        ".5 is what noise gives)."
    )


def p_value(value: float | None) -> str:
    """Three digits; nothing where it is unknown."""
    if value is None or not math.isfinite(value):
        return ""
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def _days(value: float | None) -> str:
    return "never" if value is None or not math.isfinite(value) else f"{value:,.0f}"
