"""What a Sharpe ratio is worth: how likely it is above a benchmark, and how long a record it would take to say so.

Two conventions are in use and differ: 2012 (Bailey & López de Prado) takes the variance at the observed ratio and
divides by T - 1; 2025 (López de Prado, Lipton & Zoonekynd) takes it at the benchmark and divides by T, and knows
autocorrelation. Both are given, by name. (jsharpe, which has the latter, needs a newer numpy than Debian's torch was
built with; what is here is tested against the paper's numbers.) Ratios are per period and not annualised, kurtosis is 3
for a normal.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure import pnl

Floats = NDArray[np.float64]
NORMAL = NormalDist()
EULER_MASCHERONI = 0.577_215_664_901_532_9
CONFIGURATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""N of a table of deflated ratios: the operator counts N over a model's whole life, the trainer is not told."""


def probabilistic(sharpe: float, benchmark: float, periods: int, skew: float, kurtosis: float) -> float:
    """P(true ratio > benchmark), convention of 2012; NaN where the moments give no variance."""
    variance = (1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe * sharpe) / (periods - 1)
    return NORMAL.cdf((sharpe - benchmark) / math.sqrt(variance)) if variance > 0.0 else math.nan


def shortest_record(sharpe: float, benchmark: float, skew: float, kurtosis: float, alpha: float = 0.05) -> float:
    """Periods after which the ratio would be above the benchmark at level alpha; infinite where it is not above it.

    ``1 + (1 - g₃ SR + (g₄-1)/4 SR²) (Z_{1-α} / (SR - SR*))²``. Source: Bailey & López de Prado (2012), equation 13.
    """
    if sharpe <= benchmark:
        return math.inf
    spread = 1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe * sharpe
    return 1.0 + spread * (NORMAL.inv_cdf(1.0 - alpha) / (sharpe - benchmark)) ** 2


def variance_of_2025(benchmark: float, periods: int, skew: float, kurtosis: float, rho: float) -> float:
    """Variance of the ratio's estimate where the true ratio is ``benchmark`` and returns are AR(1) with ``rho``.

    ``(a - b g₃ SR + c (g₄-1)/4 SR²)/T``, ``a = (1+ρ)/(1-ρ)``, ``b = 1 + ρ/(1-ρ) + ρ²/(1-ρ²)``, ``c = (1+ρ²)/(1-ρ²)``.
    Source: López de Prado, Lipton & Zoonekynd (2025), "How to use the Sharpe ratio".
    """
    a = (1.0 + rho) / (1.0 - rho)
    b = 1.0 + rho / (1.0 - rho) + rho**2 / (1.0 - rho**2)
    c = (1.0 + rho**2) / (1.0 - rho**2)
    return (a - b * skew * benchmark + c * 0.25 * (kurtosis - 1.0) * benchmark**2) / periods


def probabilistic_of_2025(
    sharpe: float, benchmark: float, periods: int, skew: float, kurtosis: float, rho: float
) -> float:
    """P(true ratio > benchmark), convention of 2025."""
    variance = variance_of_2025(benchmark, periods, skew, kurtosis, rho)
    return NORMAL.cdf((sharpe - benchmark) / math.sqrt(variance)) if variance > 0.0 else math.nan


def shortest_record_of_2025(
    sharpe: float, benchmark: float, skew: float, kurtosis: float, rho: float, alpha: float = 0.05
) -> float:
    """Periods after which the ratio would be above the benchmark, convention of 2025."""
    if sharpe <= benchmark:
        return math.inf
    one = variance_of_2025(benchmark, 1, skew, kurtosis, rho)
    return one * (NORMAL.inv_cdf(1.0 - alpha) / (sharpe - benchmark)) ** 2


def expected_maximum(trials: int) -> float:
    """Expected maximum of N standard normals, Bailey & López de Prado (2014), equation 1; 0 for one."""
    if trials < 2:
        return 0.0
    first, second = (NORMAL.inv_cdf(1.0 - share / trials) for share in (1.0, math.exp(-1.0)))
    return (1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second


def deflated(sharpe: float, periods: int, skew: float, kurtosis: float, trials: int) -> float:
    """P(true ratio > what the best of N skill-less trials would show), convention of 2012 and 2014."""
    variance = (1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe * sharpe) / (periods - 1)
    if variance <= 0.0:
        return math.nan
    return probabilistic(sharpe, math.sqrt(variance) * expected_maximum(trials), periods, skew, kurtosis)


def record(net: Floats, hold: Floats) -> dict[str, Any]:
    """The track record of daily net returns, beside buy-and-hold.

    Returns:
        Ratios, probabilities by both conventions, the shortest records against 0 and against buy-and-hold, and a table
        of deflated ratios by the number of configurations tried.
    """
    ratio, rival = pnl.sharpe(net), pnl.sharpe(hold)
    skew, kurtosis = pnl.moments(net)
    periods = len(net)
    rho = float(np.clip(np.corrcoef(net[1:], net[:-1])[0, 1], -0.9, 0.9))
    return {
        "sharpe": ratio,
        "buyAndHoldSharpe": rival,
        "periods": periods,
        "skew": skew,
        "kurtosis": kurtosis,
        "autocorrelation": rho,
        "2012": {
            "probabilistic": probabilistic(ratio, 0.0, periods, skew, kurtosis),
            "probabilisticAgainstBuyAndHold": probabilistic(ratio, rival, periods, skew, kurtosis),
            "minTrackRecord": shortest_record(ratio, 0.0, skew, kurtosis),
            "minTrackRecordAgainstBuyAndHold": shortest_record(ratio, rival, skew, kurtosis),
        },
        "2025": {
            "probabilistic": probabilistic_of_2025(ratio, 0.0, periods, skew, kurtosis, rho),
            "minTrackRecord": shortest_record_of_2025(ratio, 0.0, skew, kurtosis, rho),
        },
        "deflated": {str(trials): deflated(ratio, periods, skew, kurtosis, trials) for trials in CONFIGURATIONS},
    }
