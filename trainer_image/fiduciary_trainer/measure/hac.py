"""Standard errors of means and of ratios of means of dependent daily values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LAGS = 20
"""Lags of the Newey-West estimator: about one trading month, fixed so that no result depends on a tuned bandwidth."""

SHORTEST = 3 * (LAGS + 1)
"""Days below which a long-run variance over 20 lags is noise and is reported as unavailable."""


class TooShort(ValueError):
    """The series has fewer days than a standard error with 20 lags needs."""

    def __init__(self, days: int) -> None:
        super().__init__(f"{days} days; a standard error with {LAGS} lags needs at least {SHORTEST}")


def long_run_variance(values: Floats, lags: int = LAGS) -> float:
    """Long-run variance of a stationary series with Bartlett weights.

    ``g0 + 2 Σⱼ (1 - j/(L+1)) g_j`` over ``j = 1..L``, autocovariances divided by n, which keeps the sum non-negative.
    Source: Newey & West (1987), Econometrica 55(3).

    Args:
        values: one value per day, in time order, shape ``(n,)``.
        lags: L.

    Raises:
        TooShort: fewer than ``SHORTEST`` values.
    """
    count = len(values)
    if count < SHORTEST:
        raise TooShort(count)
    centred = values - values.mean()
    total = float(centred @ centred) / count
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / count
    return max(total, 0.0)


def mean_se(values: Floats) -> float:
    """Newey-West standard error of the mean of daily values, in their unit.

    Raises:
        TooShort: fewer than ``SHORTEST`` values.
    """
    return float(np.sqrt(long_run_variance(values) / len(values)))


def skill(loss: Floats, baseline: Floats) -> float:
    """``S = 1 - mean(loss) / mean(baseline)``: 0 is as good as the baseline, 1 is perfect, negative is worse."""
    return 1.0 - float(loss.mean() / baseline.mean())


def skill_se(loss: Floats, baseline: Floats) -> float:
    """Newey-West standard error of :func:`skill` by the delta method.

    With ``l`` and ``b`` the daily losses, the linearisation of ``1 - l̄/b̄`` at the sample means is the mean of
    ``ψ_t = ((1 - S) b_t - l_t) / b̄``, so ``se² = LRV(ψ)/n``. At S = 0 this is the loss difference of Diebold &
    Mariano (1995), J. Business & Economic Statistics 13(3), in units of the baseline's loss.

    Raises:
        TooShort: fewer than ``SHORTEST`` days.
    """
    influence = ((1.0 - skill(loss, baseline)) * baseline - loss) / baseline.mean()
    return mean_se(influence)


def variance_ratio(values: Floats) -> float:
    """``LRV / g0`` of a daily series: by how much dependence inflates the variance of its mean. 1 for a constant."""
    if np.ptp(values) == 0.0:
        return 1.0
    return long_run_variance(values) / float(np.var(values))
