"""The picture of the market part: a strip of quarters for each feature and rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.decisions.plots import Canvas
from bench.drift.market import RIVALS
from bench.drift.rivals import TITLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.drift.market import Alarms

LEFT, CELL, LINE, TOP = 300, 15, 15, 74
OURS, OTHERS, NONE = "#0b5fa5", "#d99a8f", "#f3f3f3"
SHORT = {"ks_p05": "KS p < .05 (Evidently, small)", "wasserstein_10": "Wasserstein/sd ≥ .1 (Evidently, large)"}


def draw(quarters: Sequence[str], found: Sequence[Alarms]) -> Path:
    """``docs/images/drift-sp500.svg``."""
    rules = ("fiduciary", *RIVALS)
    height = TOP + len(found) * (len(rules) * LINE + 16) + 30
    canvas = Canvas(
        LEFT + CELL * len(quarters) + 30,
        height,
        "S&P 500 by quarter, model trained to 2006: who alarms when",
        "Filled: at least one alarm in the quarter. Fiduciary: windows of 21 sessions, one false alarm in 200 windows "
        "over five features together.",
    )
    y = TOP
    for one in found:
        canvas.text(16, y + 11, one.feature, 'font-weight="bold"')
        for rule in rules:
            name = SHORT.get(rule, TITLES[rule])
            weight = 'font-weight="bold" ' if rule == "fiduciary" else ""
            canvas.text(LEFT - 8, y + 11, name, f'{weight}font-size="11" text-anchor="end"')
            for place, label in enumerate(quarters):
                filled = label in one.quarters[rule]
                colour = NONE if not filled else OURS if rule == "fiduciary" else OTHERS
                canvas.add(
                    f'<rect x="{LEFT + CELL * place}" y="{y}" width="{CELL - 2}" height="{LINE - 3}" fill="{colour}"/>'
                )
            y += LINE
        y += 16
    for place, label in enumerate(quarters):
        if label.endswith("-1"):
            canvas.text(LEFT + CELL * place, y + 6, label[:4], 'font-size="11" fill="#666"')
            canvas.text(LEFT + CELL * place, TOP - 8, label[:4], 'font-size="11" fill="#666"')
    return canvas.save("drift-sp500")
