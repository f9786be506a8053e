"""CUSUM of normal scores: its expected run time in closed form, and its threshold from run time and correlation."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from fiduciary.evidence.cusum_table import CORRELATIONS, RUN_TIMES, THRESHOLDS
from fiduciary.evidence.logspace import expm1_minus
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Sequence

REFERENCE_VALUE = 0.5
MOST_CORRELATION = 0.3
LEAST_BLOCKS = 50
PRIOR_CORRELATION, PRIOR_BLOCKS = 0.1, 30
_OVERSHOOT = 1.166


def expected_run_time(threshold: float, mean: float, reference_value: float = REFERENCE_VALUE) -> float:
    """Windows until S = max(0, S + z - k) exceeds h for independent z ~ N(mean, 1).

    ``(exp(-2Δb) + 2Δb - 1)/(2Δ²)``, Δ = mean - k, b = h + 1.166; b² at Δ = 0. Source: Siegmund (1985), Sequential
    Analysis, equation 2.57. About 3 % high at h = 4, less above.

    Args: threshold h >= 0; mean of the scores (0: no drift), |mean - k| b <= 350.
    """
    delta, b = mean - reference_value, threshold + _OVERSHOOT
    if delta == 0.0:
        return b * b
    return expm1_minus(min(-2.0 * delta * b, 700.0)) / (2.0 * delta * delta)


def threshold_closed_form(run_time: float) -> float | Refusal:
    """h with expected run time ``run_time`` for independent scores without drift, k = .5, by bisection of Siegmund's.

    Args: run_time in windows, 3 … 1e12.
    """
    if not 3.0 <= run_time <= 1e12:
        return Refusal(Why.PARAMETER, f"an expected run time of {run_time} windows; expected 3 to 1e12")
    low, high = 0.0, 60.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if expected_run_time(middle, 0.0) < run_time else (low, middle)
    return high


def threshold(run_time: float, correlation: float) -> float | Refusal:
    """h with expected run time ``run_time`` for AR(1) normal scores, k = .5, from the simulated table.

    Linear in ln(run time) and in the correlation. Past the table's last run time the exact asymptotic slope
    d ln(run time)/dh = 2k(1-ρ)/(1+ρ) continues it (the long-run variance in Siegmund's exponent).

    Args:
        run_time: expected windows between false alarms, 50 … 1e12.
        correlation: lag-1 correlation of the normal scores, at most .3; negative counts as 0. Above: refused, such
            scores are descriptive only (drift G5).
    """
    if not RUN_TIMES[0] <= run_time <= 1e12:
        return Refusal(Why.PARAMETER, f"an expected run time of {run_time} windows; expected {RUN_TIMES[0]:g} to 1e12")
    if not correlation <= MOST_CORRELATION:
        return Refusal(
            Why.PARAMETER,
            f"windows correlate by {correlation:.3f}, thresholds are known up to {MOST_CORRELATION}: "
            "take longer windows; until then the score is descriptive only",
        )
    rho = max(0.0, correlation)
    row = min(bisect_right(CORRELATIONS, rho), len(CORRELATIONS) - 1)
    left, right = CORRELATIONS[row - 1], CORRELATIONS[row]
    part = (rho - left) / (right - left)
    return (1.0 - part) * _along(row - 1, run_time) + part * _along(row, run_time)


def _along(row: int, run_time: float) -> float:
    heights, rho = THRESHOLDS[row], CORRELATIONS[row]
    if run_time >= RUN_TIMES[-1]:
        slope = (1.0 + rho) / (2.0 * REFERENCE_VALUE * (1.0 - rho))
        return heights[-1] + slope * math.log(run_time / RUN_TIMES[-1])
    column = bisect_right(RUN_TIMES, run_time)
    start, end = RUN_TIMES[column - 1], RUN_TIMES[column]
    part = math.log(run_time / start) / math.log(end / start)
    return (1.0 - part) * heights[column - 1] + part * heights[column]


def correlation_estimate(scores: Sequence[float]) -> float | Refusal:
    """ρ̂: lag-1 correlation of the reference's normal scores + 1/n (its bias), shrunk to .1 with the weight of 30.

    Source: Kendall (1954), Biometrika 41 (the bias); the shrinkage: drift-and-validation.md G5.

    Args: scores in time order, at least 50.
    """
    n = len(scores)
    if n < LEAST_BLOCKS:
        return Refusal(Why.TOO_FEW, f"{n} reference blocks; a detector needs {LEAST_BLOCKS}, below that: descriptive")
    if not all(abs(score) <= 1e100 for score in scores):
        return Refusal(Why.NOT_FINITE, "a normal score is not a finite number")
    mean = math.fsum(scores) / n
    squares = math.fsum((score - mean) ** 2 for score in scores)
    if squares <= 0.0:
        return Refusal(Why.NO_VARIANCE, f"all {n} scores are equal")
    products = math.fsum((a - mean) * (b - mean) for a, b in pairwise(scores))
    raw = products / squares + 1.0 / n
    return (n * raw + PRIOR_BLOCKS * PRIOR_CORRELATION) / (n + PRIOR_BLOCKS)
