"""The built-in features: what each reads, how far it looks back, how long it remembers.

Sources: Garman and Klass, "On the Estimation of Security Price Volatilities from Historical Data" (1980); Corsi, "A
Simple Approximate Long-Memory Model of Realized Volatility" (2009) for the daily, weekly and monthly means of HAR;
Corsi and Renò, "Discrete-time volatility forecasting with persistent leverage effect" (2012) for negative returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import rolling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Floats = NDArray[np.float64]

OHLC = ("open", "high", "low", "close")
MONTH, QUARTER = 22, 66
"""Sessions."""


@dataclass(frozen=True)
class Feature:
    """One causal feature of one series.

    Attributes:
        name: stable; part of a version's signature.
        columns: what it reads.
        lookback: rows that it needs, its own included: row t depends on rows t - lookback + 1 .. t, on no other.
        memory: rows over which its value is smoothed. Values closer than that are dependent by construction, so drift
            can only be judged over windows several times as long.
        compute: columns of one entity in order of time -> ``(T,)``, NaN where it is not known.
    """

    name: str
    columns: tuple[str, ...]
    lookback: int
    memory: int
    compute: Callable[[Mapping[str, Floats]], Floats]


def _log(values: Floats) -> Floats:
    """Natural logarithm; NaN where there is none (zero or negative)."""
    return np.log(values, out=np.full_like(values, np.nan), where=values > 0)


def garman_klass_variance(columns: Mapping[str, Floats]) -> Floats:
    """Variance of each session's log price, from its range and its body; the overnight move is not in it."""
    spread = _log(columns["high"]) - _log(columns["low"])
    body = _log(columns["close"]) - _log(columns["open"])
    return 0.5 * spread * spread - (2.0 * math.log(2.0) - 1.0) * body * body


def log_volatility(columns: Mapping[str, Floats]) -> Floats:
    """Log of the session's Garman-Klass standard deviation. NaN for a session without any range."""
    return 0.5 * _log(garman_klass_variance(columns))


def log_return(columns: Mapping[str, Floats], rows: int) -> Floats:
    """Log return of the close over the last ``rows`` sessions."""
    close = _log(columns["close"])
    return close - rolling.lag(close, rows)


def _volatility_mean(rows: int) -> Feature:
    return Feature(f"rv_{rows}", OHLC, rows, rows, lambda columns: rolling.mean(log_volatility(columns), rows))


def _signed(rows: int) -> Feature:
    return Feature(f"ret_{rows}", ("close",), rows + 1, rows, lambda columns: log_return(columns, rows))


def _absolute(rows: int) -> Feature:
    return Feature(f"abs_ret_{rows}", ("close",), rows + 1, rows, lambda columns: np.abs(log_return(columns, rows)))


def _negative(rows: int) -> Feature:
    return Feature(
        f"neg_ret_{rows}", ("close",), rows + 1, rows, lambda columns: np.minimum(log_return(columns, rows), 0.0)
    )


def _gap(columns: Mapping[str, Floats]) -> Floats:
    """Log move from the previous close to this open."""
    return _log(columns["open"]) - rolling.lag(_log(columns["close"]), 1)


def _range(columns: Mapping[str, Floats]) -> Floats:
    return _log(columns["high"]) - _log(columns["low"])


def _relative_volume(columns: Mapping[str, Floats]) -> Floats:
    """Log volume against its mean of the last 66 sessions."""
    volume = _log(columns["volume"])
    return volume - rolling.mean(volume, QUARTER)


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        *(_volatility_mean(rows) for rows in (1, 5, MONTH, QUARTER)),
        *(_signed(rows) for rows in (1, 5, MONTH)),
        *(_absolute(rows) for rows in (1, 5, MONTH)),
        _negative(1),
        Feature("gap", ("open", "close"), 2, 1, _gap),
        Feature("range", ("high", "low"), 1, 1, _range),
        Feature("volume_rel", ("volume",), QUARTER, QUARTER, _relative_volume),
    )
}
"""Every built-in feature by name."""

HAR_TERMS = ("rv_1", "rv_5", "rv_22")

SETS: Mapping[str, tuple[str, ...]] = {
    "ohlcv-v1": (
        *HAR_TERMS,
        "rv_66",
        *("ret_1", "ret_5", "ret_22", "abs_ret_1", "abs_ret_5", "abs_ret_22", "neg_ret_1"),
        *("gap", "range", "volume_rel"),
    ),
    "har-v1": HAR_TERMS,
    "close-v1": ("ret_1", "ret_5", "ret_22", "abs_ret_1", "abs_ret_5", "abs_ret_22", "neg_ret_1"),
}
"""Named sets. A set never changes: another content is another name, since the name is part of the training key."""
