"""Section of the card about quantiles: how often they hold, what they lose against what a desk computes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary_trainer.report.validation_card import p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_trainer.report.report import Report

RIVALS = {"residual": "residual quantiles", "filtered": "filtered simulation"}
"""Names of :mod:`fiduciary_trainer.quantile_baselines` in tables."""


def section(report: Report) -> list[str]:
    """Markdown lines; nothing where the job asks for no quantiles."""
    found = report.validation.get("quantiles")
    if not found:
        return []
    simple = "HAR" if report.kind == "Volatility" else "the training mean"
    lines = [
        "## Quantiles",
        "",
        "The outcome is meant to be at or below a quantile with the probability of its level. Models of their own, "
        "trained with pinball loss (Koenker and Bassett 1978) on the rows of the point forecast, which they leave as "
        "it is.",
        "",
        f"Held against: {simple} with the quantiles of its errors in training (residual quantiles), and with errors in "
        "units of their current size (filtered historical simulation: Hull and White 1998; Barone-Adesi, Giannopoulos "
        "and Vosper 1999), the decay tuned on each training fold.",
        "",
        *_levels(found["levels"]),
        *_losses(found["levels"]),
        *_intervals(found["intervals"]),
        "",
    ]
    if "untested" in found:
        lines.append(f"Kupiec's and Christoffersen's tests are left out: {found['untested']}.")
    else:
        lines.append(
            "Kupiec (1995): p of the share alone. Independence: p of a first-order chain of hits; Christoffersen "
            "(1998): p of both together. A small p says that the quantile does not hold, or fails in clusters."
        )
    lines += [
        "",
        f"Quantiles that cross: {found['crossed']:,}, as they are built. The point forecast, which is a mean, lies "
        f"outside of the outermost quantiles on {found['pointOutside']:.2%} of the rows.",
    ]
    return lines


def _levels(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    rivals = list(levels[0]["baselines"])
    lines = [
        f"| level | at or below | 95% interval | {' | '.join(RIVALS[name] for name in rivals)} | Kupiec | independence "
        "| Christoffersen |",
        f"|---:|---:|:---:|{'---:|' * len(rivals)}---:|---:|---:|",
    ]
    for each in levels:
        others = " | ".join(f"{each['baselines'][name]['observed']:.2%}" for name in rivals)
        lines.append(f"| {each['level']:g} | {each['observed']:.2%} | {_between(each)} | {others} | {_tests(each)} |")
    return lines


def _losses(levels: Sequence[Mapping[str, Any]]) -> list[str]:
    rivals = list(levels[0]["baselines"])
    lines = [
        "",
        f"| level | pinball loss | {' | '.join(f'less than of {RIVALS[name]}, 95%' for name in rivals)} |",
        f"|---:|---:|{':---:|' * len(rivals)}",
    ]
    for each in levels:
        skills = " | ".join(_skill(each["skill"].get(name)) for name in rivals)
        lines.append(f"| {each['level']:g} | {each['pinball']:.4g} | {skills} |")
    return lines


def _intervals(intervals: Sequence[Mapping[str, Any]]) -> list[str]:
    if not intervals:
        return []
    rivals = list(intervals[0]["baselines"])
    lines = [
        "",
        f"| interval | meant | inside | 95% interval | mean width | {' | '.join(RIVALS[name] for name in rivals)} "
        "| Kupiec | independence | Christoffersen |",
        f"|---|---:|---:|:---:|---:|{'---:|' * len(rivals)}---:|---:|---:|",
    ]
    for each in intervals:
        others = " | ".join(
            f"{each['baselines'][name]['observed']:.1%}, width {each['baselines'][name]['width']:.3g}"
            for name in rivals
        )
        lines.append(
            f"| {each['from']:g} to {each['to']:g} | {each['nominal']:.0%} | {each['observed']:.2%} "
            f"| {_between(each)} | {each['width']:.3g} | {others} | {_tests(each)} |"
        )
    return lines


def _between(said: Mapping[str, Any]) -> str:
    return f"{said['low']:.2%} to {said['high']:.2%}" if "low" in said else ""


def _tests(said: Mapping[str, Any]) -> str:
    return " | ".join(
        p_value(said[name]["p"]) if name in said else "" for name in ("kupiec", "independence", "christoffersen")
    )


def _skill(said: Mapping[str, float | None] | None) -> str:
    if said is None or said["e"] is None:
        return ""
    return f"{said['e']:.2%}" if said["se"] is None else f"{said['e']:.2%} ± {1.96 * said['se']:.2%}"
