"""Tables of the benchmark, on the terminal and in Markdown, and its figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.decisions.cells import ALL
from bench.decisions.experiments import RULES
from bench.decisions.score import Row, standard_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.decisions.sweep import Point

OURS = "fiduciary"
TITLES = {
    "fiduciary": "Fiduciary",
    "flagger": "Flagger",
    "argo_success": "Argo (success)",
    "argo_failure": "Argo (failure)",
    "kayenta": "Kayenta",
    "z_peeked": "z peeked",
    "welch_fixed": "Welch",
    "growthbook": "GrowthBook",
}


def figures(rows: Sequence[Row], seconds: float) -> dict[str, float]:
    """The numbers that the issue names; NaN where a cell was not played."""
    ours = [row for row in rows if row.rule == OURS]
    claimed = [row for row in ours if row.claimed]
    bad = [row for row in claimed if row.truth == "bad"]
    good = [row for row in claimed if row.truth == "good"]
    answer = {
        "max_null_false_promotion": max((row.promoted for row in bad), default=math.nan),
        "max_null_false_rollback": max((row.rolled_back for row in good), default=math.nan),
        "replications": float(min((row.replications for row in claimed if row.cell not in LIMITED), default=0)),
        "worst_unclaimed_cell": max(
            (row.wrong or 0.0 for row in ours if not row.claimed and row.truth != "neither"), default=math.nan
        ),
    }
    five = {row.rule: row.median for row in rows if row.cell == "errors_5pct"}
    two = {row.rule: row.promoted for row in rows if row.cell == "errors_2pct"}
    answer["rollback_minutes_median_5pct"] = five.get(OURS, math.nan)
    answer["rollback_minutes_median_5pct_flagger"] = five.get("flagger", math.nan)
    answer["p_promote_bad_2pct"] = two.get(OURS, math.nan)
    for rule in RULES[1:]:
        answer[f"p_promote_bad_2pct_{rule}"] = two.get(rule, math.nan)
    for rule in RULES:
        mine = [row for row in rows if row.rule == rule and row.wrong is not None and _can_be_wrong(row)]
        good = [row.promoted for row in rows if row.rule == rule and row.truth == "good"]
        for name, values in (
            ("p_wrong_mean", [row.wrong for row in mine if row.claimed]),
            ("p_wrong_mean_all_cells", [row.wrong for row in mine]),
            ("p_promote_good_mean", good),
        ):
            if values:
                answer[name + ("" if rule == OURS else f"_{rule}")] = sum(v or 0.0 for v in values) / len(values)
    answer["seconds"] = seconds
    return answer


def _can_be_wrong(row: Row) -> bool:
    """An objective of ours never rolls back, so that good challengers on sessions say nothing about our errors."""
    return not (row.family == "outcomes" and row.truth == "good")


def over_level(rows: Sequence[Row], alpha: float = 0.05) -> list[Row]:
    """Claimed cells in which our own error is above α by more than three standard errors."""
    return [
        row
        for row in rows
        if row.rule == OURS
        and row.claimed
        and row.wrong is not None
        and row.wrong > alpha + 3.0 * math.sqrt(alpha * (1.0 - alpha) / row.replications)
    ]


def share(p: float, replications: int) -> str:
    """As the tables write it: with the standard error where there is one to see, else a bound."""
    if p == 0.0:
        return "0"
    if p == 1.0:
        return "1"
    error = standard_error(p, replications)
    return f"{p:.4f} ±{error:.4f}".replace("0.", ".")


def number(value: float) -> str:
    if math.isnan(value):
        return "–"
    if value < 0.0:
        return "before"
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.1f}"


def markdown_wrong(rows: Sequence[Row]) -> str:
    """P(wrong decision), a row a cell, a column a rule."""
    lines = ["| cell | wrong is | " + " | ".join(TITLES[rule] for rule in RULES) + " |"]
    lines.append("|---|---|" + "---|" * len(RULES))
    for mine in _by_cell(rows).values():
        one = next(iter(mine.values()))
        if one.truth != "neither":
            kind = "to promote" if one.truth == "bad" else "to roll back"
            title = one.title if one.claimed else f"{one.title} (not claimed)"
            lines.append(f"| {title} | {kind} | " + " | ".join(_plain(mine, rule, "wrong") for rule in RULES) + " |")
    return "\n".join(lines)


def markdown_unclaimed(rows: Sequence[Row]) -> str:
    """Our own error where none is promised, and why not."""
    why = {cell.name: cell.unclaimed for cell in ALL}
    lines = ["| cell | P(wrong) | why |", "|---|---|---|"]
    for row in rows:
        if row.rule == OURS and why[row.cell] and row.wrong is not None:
            lines.append(f"| {row.title} | {share(row.wrong, row.replications)} | {why[row.cell]} |")
    return "\n".join(lines)


def markdown_power(rows: Sequence[Row]) -> str:
    """P(promote) of good challengers."""
    lines = ["| cell | " + " | ".join(TITLES[rule] for rule in RULES) + " |", "|---|" + "---|" * len(RULES)]
    for mine in _by_cell(rows).values():
        one = next(iter(mine.values()))
        if one.truth == "good":
            lines.append(f"| {one.title} | " + " | ".join(_plain(mine, rule, "promoted") for rule in RULES) + " |")
    return "\n".join(lines)


def _by_cell(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    answer: dict[str, dict[str, Row]] = {}
    for row in rows:
        answer.setdefault(row.cell, {})[row.rule] = row
    return answer


def _plain(mine: dict[str, Row], rule: str, field: str) -> str:
    """A share without its error, whose size the number of replications tells."""
    p = getattr(mine[rule], field) if rule in mine else None
    if p is None:
        return ""
    return f"{p:.0f}" if p in (0.0, 1.0) else f"{p:.4f}".rstrip("0").removeprefix("0")


def markdown_full(rows: Sequence[Row]) -> str:
    """Everything that is known of our own rule, a row a cell."""
    lines = [
        "| cell | n | promoted | rolled back | kept | median | 95 % | excess bad answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.rule == OURS:
            parts = (row.promoted, row.rolled_back, max(0.0, row.undecided))
            shares = " | ".join(share(round(p, 9), row.replications) for p in parts)
            times = f"{number(row.median)} | {number(row.p95)} | {round(row.excess_bad):,}"
            lines.append(f"| {row.title} | {row.replications:,} | {shares} | {times} |")
    return "\n".join(lines)


def markdown_times(rows: Sequence[Row], cells: Sequence[str]) -> str:
    """Median and 95 % of the time to a verdict and bad answers served, for some cells and all rules."""
    lines = ["| cell | " + " | ".join(TITLES[rule] for rule in RULES) + " |", "|---|" + "---|" * len(RULES)]
    for cell in cells:
        mine = {row.rule: row for row in rows if row.cell == cell}
        if mine:
            texts = [
                f"{number(mine[rule].median)} / {number(mine[rule].p95)}; {round(mine[rule].excess_bad):,}"
                for rule in RULES
                if rule in mine
            ]
            lines.append(f"| {next(iter(mine.values())).title} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


LIMITED = frozenset(cell.name for cell in ALL if cell.most < 10_000)
"""Cells of fewer replications than all others, each with its number in the tables."""
TIMED = ("equal", "errors_1pct", "errors_2pct", "errors_5pct", "errors_all", "slow_2pct", "late_5d")
BEGIN, END = "<!-- decisions: generated -->", "<!-- decisions: end -->"


def document(text: str, rows: Sequence[Row], points: Sequence[Point]) -> str:
    """``text`` with everything between the two marks made anew."""
    head, found, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"the page has no {BEGIN} … {END}")
    parts = [
        "### P(wrong decision)",
        markdown_wrong(rows),
        "### P(promote) of good challengers",
        markdown_power(rows),
        "### Time to a verdict, and bad answers that clients got in excess",
        "Median / 95 % in minutes since harm began (before: decided before it did); excess bad answers a run.",
        markdown_times(rows, TIMED),
        "### Fiduciary in every cell",
        "Times in minutes, or in sessions for outcomes; ± one standard error.",
        markdown_full(rows),
    ]
    parts += ["### Cells in which no level is claimed", markdown_unclaimed(rows)]
    if points:
        parts += ["### What each rule can reach", markdown_fronts(points)]
    return head + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + tail


def markdown_fronts(points: Sequence[Point]) -> str:
    """Of each rule the setting with the smallest sum of errors in all four worlds, beside its default."""
    lines = [
        "| rule | setting | equal promoted | at the margin | 1 % errors | 2 % errors | median minutes to promote |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        mine = [point for point in points if point.rule == rule]
        best = min(mine, key=_errors, default=None)
        for point in mine:
            if point.default or point is best:
                note = " (default)" if point.default else " (best)"
                shares = " | ".join(f"{point.promoted[name]:.4f}" for name in ("equal", "margin", "1 %", "2 %"))
                lines.append(f"| {TITLES[rule]} | {point.setting}{note} | {shares} | {number(point.minutes)} |")
    return "\n".join(lines)


def _errors(point: Point) -> float:
    return 1.0 - point.promoted["equal"] + point.promoted["1 %"] + point.promoted["2 %"] + point.promoted["margin"]
