"""Pictures of docs/benchmarks.md as SVG text, drawn without a library: same numbers, same bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from bench.decisions.experiments import RULES
from bench.decisions.report import TITLES
from bench.decisions.score import MINUTES
from bench.decisions.sweep import front

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.decisions.score import Row
    from bench.decisions.sweep import Point

FOLDER = Path(__file__).resolve().parents[2] / "docs/images"
COLOURS = {
    "fiduciary": "#0b5fa5",
    "flagger": "#c0392b",
    "argo_success": "#d68910",
    "argo_failure": "#8d6e12",
    "kayenta": "#7d3c98",
    "z_peeked": "#2e8b57",
    "welch_fixed": "#5f6a6a",
    "growthbook": "#c2185b",
}
INK, GRID = "#333", "#e3e3e3"


class Canvas:
    """Parts of one picture; y grows downwards."""

    def __init__(self, width: int, height: int, title: str, subtitle: str = "") -> None:
        self.width, self.height = width, height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            f'font-size="12" fill="{INK}">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]
        self.text(16, 22, title, 'font-size="15" font-weight="bold"')
        if subtitle:
            self.text(16, 40, subtitle, 'fill="#666"')

    def text(self, x: float, y: float, words: str, more: str = "") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>')

    def add(self, part: str) -> None:
        self.parts.append(part)

    def save(self, name: str) -> Path:
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{name}.svg"
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")
        return path


def draw(rows: Sequence[Row], points: Sequence[Point]) -> list[Path]:
    """All pictures for which there are numbers."""
    made = [wrong(rows)]
    if any(row.cell == "errors_5pct" for row in rows):
        made.append(rollbacks(rows))
    if points:
        made.append(fronts(points))
    return made


def _shade(p: float) -> tuple[str, str]:
    """Background and ink of a probability of error: white to α, then yellow to dark red on a square-root scale."""
    if p <= 0.05:
        level = math.sqrt(p / 0.05) * 0.10
        return f"rgb({246 - 40 * level:.0f},{250 - 20 * level:.0f},{246 - 60 * level:.0f})", "#2d6a4f"
    level = math.sqrt((p - 0.05) / 0.95)
    red, green, blue = 255 - 100 * level**2, 226 - 196 * level, 170 - 140 * level
    return f"rgb({red:.0f},{green:.0f},{blue:.0f})", "#fff" if level > 0.45 else "#5a1a00"


def wrong(rows: Sequence[Row]) -> Path:
    """A matrix: cells by rules, P(wrong decision) as number and colour."""
    cells = [cell for cell in dict.fromkeys(row.cell for row in rows) if _truth(rows, cell) != "neither"]
    left, top, wide, high = 470, 92, 88, 19
    canvas = Canvas(
        left + wide * len(RULES) + 16,
        top + high * (len(cells) + 3) + 30,
        "Probability of a wrong decision",
        "Promoting the bad (▲) or rolling back the good (▼). Green: at most α = .05. Grey titles: no level is claimed.",
    )
    for column, rule in enumerate(RULES):
        x = left + wide * (column + 0.5)
        weight = ' font-weight="bold"' if rule == "fiduciary" else ""
        canvas.text(x, top - 10, TITLES[rule], f'text-anchor="middle" font-size="11"{weight}')
    y, family = top, ""
    for cell in cells:
        mine = {row.rule: row for row in rows if row.cell == cell}
        one = next(iter(mine.values()))
        if family and one.family != family:
            y += high
        family = one.family
        colour = INK if one.claimed else "#999"
        canvas.text(left - 26, y + 13, one.title, f'text-anchor="end" fill="{colour}"')
        canvas.text(left - 14, y + 13, "▲" if one.truth == "bad" else "▼", 'text-anchor="middle" fill="#888"')
        for column, rule in enumerate(RULES):
            row = mine.get(rule)
            if row is None or row.wrong is None:
                continue
            back, ink = _shade(row.wrong)
            x = left + wide * column
            canvas.add(f'<rect x="{x}" y="{y}" width="{wide - 2}" height="{high - 2}" fill="{back}"/>')
            label = "0" if row.wrong == 0.0 else f"{row.wrong:.3f}".removeprefix("0") if row.wrong < 1.0 else "1"
            canvas.text(x + wide / 2 - 1, y + 13, label, f'text-anchor="middle" font-size="11" fill="{ink}"')
        y += high
    return canvas.save("decisions-wrong")


def _truth(rows: Sequence[Row], cell: str) -> str:
    return next(row.truth for row in rows if row.cell == cell)


def _panel(
    canvas: Canvas,
    box: tuple[float, float, float, float],
    axes: tuple[Callable[[float], float], Callable[[float], float]],
    ticks: tuple[Sequence[float], Sequence[float]],
    words: tuple[str, str, str],
) -> None:
    """Grid, ticks and labels of one panel; ``axes`` map values to the canvas."""
    left, top, right, bottom = box
    x, y = axes
    for value in ticks[0]:
        canvas.add(f'<path d="M{x(value):.1f} {top}V{bottom}" stroke="{GRID}"/>')
        canvas.text(x(value), bottom + 16, f"{value:g}", 'text-anchor="middle" font-size="11"')
    for value in ticks[1]:
        canvas.add(f'<path d="M{left} {y(value):.1f}H{right}" stroke="{GRID}"/>')
        canvas.text(left - 7, y(value) + 4, f"{value:g}", 'text-anchor="end" font-size="11"')
    canvas.add(f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>')
    canvas.text((left + right) / 2, top - 9, words[0], 'text-anchor="middle" font-weight="bold"')
    canvas.text((left + right) / 2, bottom + 33, words[1], 'text-anchor="middle"')
    canvas.add(
        f'<text transform="translate({left - 44:.0f} {(top + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(words[2])}</text>"
    )


def _legend(canvas: Canvas, x: float, y: float, rules: Sequence[str]) -> None:
    for index, rule in enumerate(rules):
        at = y + 19 * index
        canvas.add(f'<path d="M{x} {at}h18" stroke="{COLOURS[rule]}" stroke-width="3"/>')
        weight = ' font-weight="bold"' if rule == "fiduciary" else ""
        canvas.text(x + 25, at + 4, TITLES[rule], f'fill="{COLOURS[rule]}"{weight}')


def rollbacks(rows: Sequence[Row]) -> Path:
    """Share of bad challengers rolled back by each minute."""
    canvas = Canvas(
        980, 360, "How soon a bad challenger is rolled back",
        "300 requests/min, the champion fails .5 %; default settings of every rule",
    )  # fmt: skip
    for panel, (cell, words) in enumerate((("errors_5pct", "5 % errors"), ("errors_2pct", "2 % errors"))):
        left, right, top, bottom = 66 + 410 * panel, 426 + 410 * panel, 78, 306
        low, high = math.log(MINUTES[0]), math.log(MINUTES[-1])

        def x(value: float, left: float = left, right: float = right, low: float = low, high: float = high) -> float:
            return left + (right - left) * (math.log(value) - low) / (high - low)

        def y(value: float, top: float = top, bottom: float = bottom) -> float:
            return bottom - (bottom - top) * value

        ticks = ((0.5, 1, 3, 10, 30, 100, 300, 1000), (0, 0.25, 0.5, 0.75, 1))
        _panel(
            canvas, (left, top, right, bottom), (x, y), ticks, (words, "minutes", "rolled back" if not panel else "")
        )
        for rule in reversed(RULES):
            row = next((row for row in rows if row.cell == cell and row.rule == rule), None)
            if row is None:
                continue
            path = "L".join(f"{x(m):.1f} {y(p):.1f}" for m, p in zip(MINUTES, row.rolled_back_by, strict=True))
            width = 3 if rule == "fiduciary" else 1.8
            dash = ' stroke-dasharray="5 4"' if rule == "argo_failure" else ""
            canvas.add(f'<path d="M{path}" fill="none" stroke="{COLOURS[rule]}" stroke-width="{width}"{dash}/>')
    _legend(canvas, 856, 96, RULES)
    return canvas.save("decisions-rollback")


def fronts(points: Sequence[Point]) -> Path:
    """What each rule can reach with any of its settings: good challengers not promoted against bad ones promoted."""
    canvas = Canvas(
        980, 470, "What each rule can reach with any setting, within two days",
        "Dots: settings. Lines: fronts. Ringed: defaults. Lower left is better.",
    )  # fmt: skip
    floor = 0.5 / points[0].replications
    rules = [rule for rule in RULES if any(point.rule == rule for point in points)]
    for panel, (bad, words) in enumerate((("1 %", "bad: 1 % errors (2×)"), ("margin", "bad: at the margin (.625 %)"))):
        left, right, top, bottom = 66 + 410 * panel, 426 + 410 * panel, 84, 416

        def x(value: float, left: float = left, right: float = right) -> float:
            return left + (right - left) * (math.log10(max(value, floor)) - math.log10(floor)) / -math.log10(floor)

        def y(value: float, top: float = top, bottom: float = bottom) -> float:
            return bottom - (bottom - top) * (math.log10(max(value, floor)) - math.log10(floor)) / -math.log10(floor)

        ticks = [0.0, *(tick for tick in (0.001, 0.01, 0.1, 1.0) if tick > 2.0 * floor)]
        label = ("equal challenger not promoted", "bad challenger promoted" if not panel else "")
        _panel(canvas, (left, top, right, bottom), (x, y), (ticks, ticks), (words, *label))
        for rule in reversed(rules):
            mine = [point for point in points if point.rule == rule]
            line = front(mine, bad)
            path = "L".join(f"{x(1 - p.promoted['equal']):.1f} {y(p.promoted[bad]):.1f}" for p in line)
            width = 2.6 if rule == "fiduciary" else 1.4
            canvas.add(f'<path d="M{path}" fill="none" stroke="{COLOURS[rule]}" stroke-width="{width}" opacity=".75"/>')
            for point in mine:
                at = f'cx="{x(1 - point.promoted["equal"]):.1f}" cy="{y(point.promoted[bad]):.1f}"'
                size = 4 if rule == "fiduciary" else 2.4
                canvas.add(f'<circle {at} r="{size}" fill="{COLOURS[rule]}" opacity=".8"/>')
                if point.default:
                    canvas.add(f'<circle {at} r="7" fill="none" stroke="{COLOURS[rule]}" stroke-width="1.8"/>')
    _legend(canvas, 856, 102, rules)
    return canvas.save("decisions-fronts")
