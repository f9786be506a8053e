"""Losses and scores of single rows, by label kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROBABILITY_FLOOR = 1e-12
"""A forecast of exactly 0 or 1 that is wrong has infinite log loss; probabilities are clipped this far from both."""


def squared_error(y: Floats, prediction: Floats) -> Floats:
    """``(y - p)²``: squared error, and for 0/1 outcomes the Brier score (Brier 1950, Monthly Weather Review 78)."""
    return (y - prediction) ** 2


def qlike(y: Floats, prediction: Floats) -> Floats:
    """QLIKE of a volatility forecast, both arguments **log volatilities**: ``r - ln r - 1`` with ``r = s2/h``.

    ``ln r = 2(y - p)``. It is 0 for a perfect forecast and ranks forecasts consistently when s2 is a noisy unbiased
    proxy. Source: Patton (2011), J. Econometrics 160(1).
    """
    log_ratio = 2.0 * (y - prediction)
    return np.exp(log_ratio) - log_ratio - 1.0


def log_loss(y: Floats, probability: Floats) -> Floats:
    """``-[y ln p + (1-y) ln(1-p)]`` in nats."""
    p = np.clip(probability, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    return -(y * np.log(p) + (1.0 - y) * np.log1p(-p))


def is_hit(y: Floats, probability: Floats) -> Floats:
    """1 where the more probable class came true. ``p = ½`` exactly counts as a forecast of 0."""
    return ((probability > 0.5) == (y > 0.5)).astype(np.float64)


def reliability(y: Floats, probability: Floats, bins: int = 10) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean forecast, observed frequency and rows in equal-width bins of the forecast; empty bins are NaN, NaN, 0."""
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        forecast = np.bincount(index, weights=probability, minlength=bins) / counts
        observed = np.bincount(index, weights=y, minlength=bins) / counts
    return forecast, observed, counts


def expected_calibration_error(y: Floats, probability: Floats, bins: int = 10) -> float:
    """``Σ_b n_b/n · |observed_b - forecast_b|`` over equal-width bins.

    Source: Naeini, Cooper & Hauskrecht (2015), AAAI, for the probability of class 1.
    """
    forecast, observed, counts = reliability(y, probability, bins)
    filled = counts > 0
    return float(np.sum(counts[filled] * np.abs(observed[filled] - forecast[filled])) / len(y))


def pinball(y: Floats, quantiles: Floats, levels: Floats) -> Floats:
    """``(n, K)``: ``max(τ u, (τ - 1) u)`` with ``u = y - q``, in the unit of the outcome.

    Smallest in the mean at the true quantile. Source: Koenker & Bassett (1978), Econometrica 46(1).
    """
    above = y[:, None] - quantiles
    return np.maximum(levels * above, (levels - 1.0) * above)
