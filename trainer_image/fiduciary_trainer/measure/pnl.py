"""Paper profit and loss of the simplest rule that a forecast supports, after costs.

The rule is one for Direction and Return: hold an equal weight of every entity whose forecast says up, hold cash for
the rest. No leverage, no short sale, so that it compares with buy-and-hold one to one. A forecast over h sessions is
held for h sessions: the book is the mean of the h last decisions, each in a sleeve of 1/h (Jegadeesh & Titman 1993,
J. Finance 48(1)), so overlapping horizons are not counted h times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProfitAndLoss:
    """One value per day; returns are simple, per unit of capital, and belong to the session after the decision.

    Attributes:
        net: return of the rule after costs.
        hold: return of buying the same entities at the first day and holding them equally weighted, after costs.
        turnover: traded notional per unit of capital, ``Σᵢ |wᵢ,t - wᵢ,t₋₁|``.
    """

    net: Floats
    hold: Floats
    turnover: Floats


def profit_and_loss(rows: Rows, is_up: NDArray[np.bool_], cost_bps: float, horizon: int) -> ProfitAndLoss:
    """Daily returns of the rule and of buy-and-hold.

    Args:
        rows: out-of-sample rows with finite ``returns``.
        is_up: per row, whether the forecast says up.
        cost_bps: cost of trading one unit of notional, in basis points, paid by both.
        horizon: sessions that a forecast covers.
    """
    names = np.unique(rows.entity)
    column = np.searchsorted(names, rows.entity)
    shape = (len(rows.days), len(names))
    present = np.zeros(shape, dtype=bool)
    present[rows.day_index, column] = True
    signal = np.zeros(shape)
    signal[rows.day_index, column] = is_up
    returns = np.zeros(shape)
    returns[rows.day_index, column] = rows.returns

    sleeves = np.zeros(shape)
    for age in range(min(horizon, len(rows.days))):
        sleeves[age:] += signal[: len(signal) - age] / horizon
    share = present / present.sum(axis=1, keepdims=True)
    cost = cost_bps / 10_000.0
    net, turnover = _book(sleeves * share, returns, cost)
    hold, _ = _book(share, returns, cost)
    return ProfitAndLoss(net=net, hold=hold, turnover=turnover)


def _book(weights: Floats, returns: Floats, cost: float) -> tuple[Floats, Floats]:
    before = np.vstack([np.zeros((1, weights.shape[1])), weights[:-1]])
    turnover = np.abs(weights - before).sum(axis=1)
    return (weights * returns).sum(axis=1) - cost * turnover, turnover


def equity(net: Floats) -> Floats:
    """Compounded value of one unit of capital at the end of each day."""
    return np.cumprod(1.0 + net)


def drawdown(net: Floats) -> Floats:
    """Loss from the highest value so far (the start counts), as a share of it: 0 at a new high."""
    value = equity(net)
    peak = np.maximum(np.maximum.accumulate(value), 1.0)
    return 1.0 - value / peak


def sharpe(net: Floats) -> float:
    """Mean over standard deviation (n - 1) per day, risk-free rate 0, not annualised. NaN where nothing varies."""
    return float(net.mean() / np.std(net, ddof=1)) if np.ptp(net) > 0.0 else float("nan")


def sharpe_influence(net: Floats) -> Floats:
    """Linearisation of the Sharpe ratio: ``z - (SR/2)(z² - 1)`` with ``z = (r - μ)/sd``; its mean's se is the ratio's.

    Source: Lo (2002), Financial Analysts Journal 58(4), generalised-method-of-moments form.
    """
    z = (net - net.mean()) / np.std(net)
    return z - 0.5 * float(net.mean() / np.std(net)) * (z**2 - 1.0)


def moments(net: Floats) -> tuple[float, float]:
    """Skewness and non-excess kurtosis (3 for a normal), as Bailey & López de Prado (2012), J. Risk 15(2) use them."""
    z = (net - net.mean()) / np.std(net)
    return float(np.mean(z**3)), float(np.mean(z**4))
