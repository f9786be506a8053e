"""Draws the pictures of docs/statistics.md from the operator's own evidence: log e-values of simulated paths, as SVG.

PYTHONPATH=operator:. python -m bench.statistics_figures     # seconds, needs numpy; same bytes each time
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.evidence_size import minutes, ok
from fiduciary.evidence.betting import Betting
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.conformal import Calibration, ConformalCusum
from fiduciary.evidence.harm import Harm

FOLDER = Path(__file__).resolve().parents[1] / "docs/images"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 330, 56, 16, 34, 40
COLOURS = ("#1b6ca8", "#c0392b", "#7a8b3c", "#8e5ea2")
Line = tuple[str, list[float]]


def picture(
    name: str, title: str, unit: str, lines: list[Line], limit: tuple[str, float], low: float, top: float
) -> None:
    """Lines over 0 … n - 1 with a dashed decision threshold; values outside low … top are cut off."""
    n = max(len(values) for _, values in lines)

    def x(k: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * k / max(1, n - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - min(max(value, low), top)) / (top - low)

    def text(at_x: float, at_y: float, words: str, more: str = "") -> str:
        return f'<text x="{at_x:.0f}" y="{at_y:.0f}" {more}>{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 20, title, 'font-size="14" font-weight="bold"'),
    ]
    step = 10 ** math.floor(math.log10((top - low) / 3)) * (
        2 if (top - low) / 10 ** math.floor(math.log10((top - low) / 3)) > 6 else 1
    )
    for tick in np.arange(math.ceil(low / step) * step, top + 1e-9, step):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:g}", 'text-anchor="end"'))
    for part in range(5):
        k = round((n - 1) * part / 4)
        parts.append(text(x(k), HEIGHT - BOTTOM + 18, f"{k}", 'text-anchor="middle"'))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, unit, 'text-anchor="middle"'))
    parts.append(f'<path d="M{LEFT} {y(limit[1]):.1f}H{WIDTH - RIGHT}" stroke="#333" stroke-dasharray="6 4"/>')
    parts.append(text(WIDTH - RIGHT - 4, y(limit[1]) - 6, limit[0], 'text-anchor="end"'))
    for index, (label, values) in enumerate(lines):
        path = "L".join(f"{x(k):.1f} {y(value):.1f}" for k, value in enumerate(values))
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[index]}" stroke-width="1.8"/>')
        parts.append(text(LEFT + 12, TOP + 16 + 17 * index, label, f'fill="{COLOURS[index]}" font-weight="bold"'))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def harm_path(rate: Any, seed: int, n: int) -> list[float]:
    state, values = ok(Harm.start(Counts(200_000, 1000), 43_200)), [0.0]
    for block in minutes(np.random.default_rng(seed), n, 0.005, rate):
        state = ok(state.fold(block, 1.5))
        values.append(state.log_e)
    return values


def session_path(values: Any) -> list[float]:
    state, path = ok(Betting.start(1.0)), [0.0]
    for k, value in enumerate(values.tolist()):
        state = ok(state.fold(k, value))
        path.append(state.log_e)
    return path


def drift_path(shift: float, seed: int) -> tuple[list[float], float]:
    rng = np.random.default_rng(seed)
    its, state, path = ok(Calibration.of(rng.normal(size=100).tolist(), 2160.0, 1)), ConformalCusum(), [0.0]
    for k in range(120):
        state = ok(state.fold(its, k, float(rng.normal() + (shift if k >= 80 else 0.0))))
        path.append(state.cusum)
    return path, its.height


def main() -> None:
    n = 300
    late = np.where(np.arange(n) < 240, 0.005, 0.05)
    picture(
        "harm",
        "Evidence of harm: base rate .5 %, 300 requests/min, half each",
        "minutes",
        [
            ("no harm", harm_path(0.005, 3, n)),
            ("2 % errors", harm_path(0.02, 3, n)),
            ("5 % after 240 min", harm_path(late, 3, n)),
        ],
        ("ln 1/α = 3.0: roll back", math.log(20)),
        -2.0,
        10.0,
    )
    rng = np.random.default_rng(5)
    noise = rng.standard_t(3, 2500) / math.sqrt(3)
    signs = np.repeat([1.0, -1.0] * 10, 125)
    picture(
        "sessions",
        "Evidence of superiority on sessions (t₃ differences)",
        "sessions",
        [
            ("better by .1 sd", session_path(noise + 0.1)),
            ("no better", session_path(noise)),
            ("regimes ± .2 sd of 125 days", session_path(noise + 0.2 * signs)),
        ],
        ("ln 1/α = 3.0", math.log(20)),
        -4.0,
        10.0,
    )
    (with_drift, height), (without, _) = drift_path(1.5, 8), drift_path(0.0, 8)
    picture(
        "drift",
        "CUSUM of normal scores: drift of 1.5 sd begins at window 80",
        "windows",
        [("drift", with_drift), ("no drift", without)],
        (f"threshold {height:.1f}: one false alarm in 2,160 windows", height),
        0.0,
        16.0,
    )


if __name__ == "__main__":
    main()
