"""Probabilistic and deflated Sharpe ratios of a track record.

Convention: Bailey & López de Prado (2012, 2014): the variance is taken at the observed Sharpe ratio and divided by
T - 1. (López de Prado, Lipton & Zoonekynd (2025) take it at the benchmark and divide by T.) Ratios are per period,
kurtosis is non-excess (3 for a normal).
"""

from __future__ import annotations

import math

from fiduciary.evidence.distributions import normal_cdf, normal_quantile

CONVENTION = "2012"
_EULER_MASCHERONI = 0.577_215_664_901_532_9


def sharpe_variance(sharpe: float, periods: int, skew: float, kurtosis: float) -> float:
    """Variance of an estimated Sharpe ratio: ``(1 - g₃ SR + (g₄ - 1)/4 SR²) / (T - 1)``.

    Source: Bailey & López de Prado (2012), J. Risk 15(2), equation 5 (after Mertens 2002).
    """
    return (1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe * sharpe) / (periods - 1)


def probabilistic_sharpe(sharpe: float, benchmark: float, periods: int, skew: float, kurtosis: float) -> float | None:
    """P(true Sharpe ratio > benchmark); None where the moments give no positive variance or T < 2.

    ``Φ((SR - SR*) √(T-1) / √(1 - g₃ SR + (g₄-1)/4 SR²))``. Source: Bailey & López de Prado (2012), equation 11.
    """
    if periods < 2:
        return None
    variance = sharpe_variance(sharpe, periods, skew, kurtosis)
    return None if variance <= 0.0 else normal_cdf((sharpe - benchmark) / math.sqrt(variance))


def min_track_record(sharpe: float, benchmark: float, skew: float, kurtosis: float, alpha: float) -> float | None:
    """Periods after which the ratio would be above the benchmark at level ``alpha``; None where it is not above it.

    ``1 + (1 - g₃ SR + (g₄-1)/4 SR²) (Z_{1-α} / (SR - SR*))²``. Source: Bailey & López de Prado (2012), equation 13.
    """
    spread = 1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe * sharpe
    if sharpe <= benchmark or spread <= 0.0:
        return None
    return 1.0 + spread * (normal_quantile(1.0 - alpha) / (sharpe - benchmark)) ** 2


def expected_maximum(trials: int) -> float:
    """Expected maximum of N independent standard normals: ``(1-γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e))``; 0 for N = 1.

    Source: Bailey & López de Prado (2014), J. Portfolio Management 40(5), equation 1.
    """
    if trials < 2:
        return 0.0
    gamma = _EULER_MASCHERONI
    return (1.0 - gamma) * normal_quantile(1.0 - 1.0 / trials) + gamma * normal_quantile(1.0 - 1.0 / (trials * math.e))


def deflated_sharpe(
    sharpe: float, periods: int, skew: float, kurtosis: float, trials: int, trial_variance: float | None = None
) -> float | None:
    """P(true Sharpe ratio > what the best of N skill-less trials would show), or None as above.

    The benchmark is ``√V · E[max_N]``. ``trial_variance`` is the variance of the Sharpe ratios over the trials; where
    only one track record exists it is taken as the variance of this estimate, which is what skill-less trials of the
    same length would show. Source: Bailey & López de Prado (2014), equation 2.
    """
    if periods < 2:
        return None
    variance = sharpe_variance(sharpe, periods, skew, kurtosis) if trial_variance is None else trial_variance
    if variance <= 0.0:
        return None
    return probabilistic_sharpe(sharpe, math.sqrt(variance) * expected_maximum(trials), periods, skew, kurtosis)
