"""Streams of rows without drift, and what becomes of them when something drifts. All have mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = NDArray[np.float64]
BURN_IN = 500

Stream = Literal["iid", "ar90", "garch"]


def iid(rng: np.random.Generator, rows: int) -> Floats:
    return rng.normal(size=rows)


def ar90(rng: np.random.Generator, rows: int) -> Floats:
    """Gaussian AR(1), φ = .9: a smoothed indicator."""
    noise = rng.normal(size=rows + BURN_IN) * math.sqrt(1.0 - 0.81)
    return lfilter([1.0], [1.0, -0.9], noise)[BURN_IN:]


def garch(rng: np.random.Generator, rows: int) -> Floats:
    """Daily returns: GARCH(1,1), α .08, β .90, Gaussian innovations (Bollerslev 1986); volatility halves in 34 days."""
    noise = rng.normal(size=rows + BURN_IN)
    found, variance, last = np.empty(rows + BURN_IN), 1.0, 0.0
    for k, e in enumerate(noise.tolist()):
        variance = 0.02 + 0.08 * last * last + 0.90 * variance
        last = math.sqrt(variance) * e
        found[k] = last
    return found[BURN_IN:]


STREAMS: dict[str, Callable[[np.random.Generator, int], Floats]] = {"iid": iid, "ar90": ar90, "garch": garch}


def correlated_scores(rng: np.random.Generator, paths: int, windows: int, rho: float) -> Floats:
    """Scores of windows themselves as a Gaussian AR(1)."""
    noise = rng.normal(size=(paths, windows))
    noise[:, 1:] *= math.sqrt(1.0 - rho * rho)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)


# --- drifts: rows of one quantity before and after -------------------------------------------------------------------


def mean(rng: np.random.Generator, rows: int) -> Floats:
    """+.5 sd."""
    return rng.normal(size=rows) + 0.5


def variance(rng: np.random.Generator, rows: int) -> Floats:
    """Standard deviation × 1.5."""
    return 1.5 * rng.normal(size=rows)


def tail(rng: np.random.Generator, rows: int) -> Floats:
    """Student t with 3 degrees, scaled to variance 1."""
    return rng.standard_t(3, size=rows) / math.sqrt(3.0)


FEATURES = 5


def independent(rng: np.random.Generator, rows: int) -> Floats:
    """Distance of five independent features from their centre."""
    return np.linalg.norm(rng.normal(size=(rows, FEATURES)), axis=1)


def correlated(rng: np.random.Generator, rows: int) -> Floats:
    """The same where any two correlate by .6: each feature by itself is as before."""
    common, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, FEATURES))
    return np.linalg.norm(math.sqrt(0.6) * common + math.sqrt(0.4) * own, axis=1)


def loss(rng: np.random.Generator, rows: int) -> Floats:
    """Squared errors of a forecast whose errors are normal."""
    return rng.normal(size=rows) ** 2


def concept(rng: np.random.Generator, rows: int) -> Floats:
    """The same where the errors are a quarter larger: what is predicted follows other rules, the inputs do not."""
    return 1.5625 * rng.normal(size=rows) ** 2


DRIFTS: dict[str, tuple[Callable[[np.random.Generator, int], Floats], Callable[[np.random.Generator, int], Floats]]] = {
    "mean +.5 sd": (iid, mean),
    "sd × 1.5": (iid, variance),
    "tail t₃": (iid, tail),
    "correlation .6": (independent, correlated),
    "concept: loss × 1.56": (loss, concept),
}
