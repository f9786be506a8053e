"""Out-of-sample rows at the boundary of each gate's null (facts G4), cheap to draw and measured by the trainer's code.

Three markets: GARCH returns without direction, log volatility that follows its own past, a base rate that drifts. Model
and baselines are unbiased forecasts with independent, persistent errors, so that every skill is known exactly: errors
of equal size are a skill of 0, and larger ones of the model a skill of less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

Floats = NDArray[np.float64]

DAYS = 1_500
FOLDS = 6
VOLATILITY_ERROR = 0.4
"""Standard deviation of what the conditional mean leaves of log volatility."""
FORECAST_ERROR = 0.1
"""Standard deviation of a forecast around the conditional mean."""
LEAN = 0.03
"""Standard deviation of a probability around the true rate."""


def persistent(rng: np.random.Generator, phi: float, sd: float, days: int = DAYS) -> Floats:
    """A stationary AR(1) path of the given standard deviation."""
    path = [float(rng.normal(0.0, sd))]
    for shock in rng.normal(0.0, sd * (1 - phi * phi) ** 0.5, days - 1).tolist():
        path.append(phi * path[-1] + shock)
    return np.asarray(path)


def garch(rng: np.random.Generator, days: int = DAYS) -> Floats:
    """Daily returns of a GARCH(1,1) without drift; unconditional standard deviation 1 %."""
    path, variance = list[float](), 1.0
    for shock in rng.standard_normal(days).tolist():
        path.append(shock * variance**0.5)
        variance = 0.03 + 0.08 * path[-1] ** 2 + 0.89 * variance
    return 0.01 * np.asarray(path)


def rows(y: Floats, prediction: Floats, baselines: Mapping[str, Floats], returns: Floats, entities: int = 1) -> Rows:
    """One row a day and entity, in folds of equal length; labels end on the next day."""
    days = len(y) // entities
    time = np.datetime64("2005-01-03", "ns") + np.arange(days + 1) * np.timedelta64(1, "D")
    return Rows(
        dates=np.repeat(time[:-1], entities),
        label_end=np.repeat(time[1:], entities),
        entity=np.tile([f"S{number}" for number in range(entities)], days),
        fold=np.repeat(np.arange(days) * FOLDS // days, entities),
        y=y,
        prediction=prediction,
        baselines=baselines,
        returns=returns,
    )


def volatility(rng: np.random.Generator, skill: float = 0.0, better_in: int | None = None) -> Rows:
    """Log volatility that follows HAR, of which the conditional mean is 0 without loss of generality.

    Args:
        rng: draws.
        skill: true skill of the model against each baseline, at most 0: its forecast errors are larger.
        better_in: a fold in which the model knows half of what the others cannot know.
    """
    y = rng.normal(0.0, VOLATILITY_ERROR, DAYS)
    base = VOLATILITY_ERROR**2 + FORECAST_ERROR**2
    sd = (base * (1.0 - skill) - VOLATILITY_ERROR**2) ** 0.5
    model = persistent(rng, 0.8, sd)
    if better_in is not None:
        inside = np.arange(DAYS) * FOLDS // DAYS == better_in
        model = np.where(inside, 0.5 * y, model)
    rivals = {name: persistent(rng, 0.8, FORECAST_ERROR) for name in ("ewma", "har", "ols", "persistence")}
    return rows(y, model, rivals, np.zeros(DAYS))


def direction(rng: np.random.Generator, skill: float = 0.0) -> Rows:
    """The sign of a GARCH return is a fair coin; the forecast leans by persistent amounts that mean nothing."""
    returns = garch(rng)
    return _leaning(rng, np.full(DAYS, 0.5), (returns > 0).astype(np.float64), returns, 0.9, skill)


def drifting(rng: np.random.Generator, skill: float = 0.0) -> Rows:
    """The rate of rises drifts; forecasts follow it with independent errors."""
    rate = np.clip(0.54 + persistent(rng, 0.995, 0.05), 0.05, 0.95)
    up = (rng.random(DAYS) < rate).astype(np.float64)
    returns = np.where(up > 0, 1.0, -1.0) * np.abs(garch(rng))
    return _leaning(rng, rate, up, returns, 0.95, skill)


def _leaning(rng: np.random.Generator, rate: Floats, up: Floats, returns: Floats, phi: float, skill: float) -> Rows:
    base = float(np.mean(rate * (1.0 - rate))) + LEAN**2
    sd = (base * (1.0 - skill) - float(np.mean(rate * (1.0 - rate)))) ** 0.5
    model = np.clip(rate + persistent(rng, phi, sd), 0.01, 0.99)
    rivals = {
        name: np.clip(rate + persistent(rng, phi, LEAN), 0.01, 0.99) for name in ("base_rate", "persistence", "ols")
    }
    return rows(up, model, rivals, returns)


def returns(rng: np.random.Generator, skill: float = 0.0, entities: int = 1) -> Rows:
    """GARCH returns whose mean is 0; forecasts are persistent and unrelated to them."""
    many = np.column_stack([garch(rng) for _ in range(entities)]).ravel()
    base = float(np.mean(many**2))
    error = 0.1 * base**0.5
    sd = (base * (1.0 - skill) - base + error**2 * (1.0 - skill)) ** 0.5

    def forecast(size: float) -> Floats:
        return np.column_stack([persistent(rng, 0.9, size) for _ in range(entities)]).ravel()

    rivals = {name: forecast(error) for name in ("mean", "ols", "persistence")}
    return rows(many, forecast(sd), rivals, many, entities)
