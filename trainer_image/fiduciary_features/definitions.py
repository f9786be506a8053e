"""The built-in features: what each reads, how far it looks back, how long it remembers.

Sources: Garman and Klass, "On the Estimation of Security Price Volatilities from Historical Data" (1980); Corsi, "A
Simple Approximate Long-Memory Model of Realized Volatility" (2009) for the daily, weekly and monthly means of HAR;
Corsi and Renò, "Discrete-time volatility forecasting with persistent leverage effect" (2012) for negative returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import rolling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fiduciary_features.series import Series

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
        compute: one instrument's rows -> ``(T,)``, NaN where it is not known.
    """

    name: str
    columns: tuple[str, ...]
    lookback: int
    memory: int
    compute: Callable[[Series], Floats]


def _volatility_mean(rows: int) -> Feature:
    return Feature(f"rv_{rows}", OHLC, rows, rows, lambda series: rolling.mean(series.log_volatility, rows))


def _signed(rows: int) -> Feature:
    return Feature(f"ret_{rows}", ("close",), rows + 1, rows, lambda series: series.log_return(rows))


def _absolute(rows: int) -> Feature:
    return Feature(f"abs_ret_{rows}", ("close",), rows + 1, rows, lambda series: np.abs(series.log_return(rows)))


def _negative(rows: int) -> Feature:
    return Feature(
        f"neg_ret_{rows}", ("close",), rows + 1, rows, lambda series: np.minimum(series.log_return(rows), 0.0)
    )


def _gap(series: Series) -> Floats:
    """Log move from the previous close to this open."""
    return series.log("open") - rolling.lag(series.log("close"), 1)


def _range(series: Series) -> Floats:
    return series.log("high") - series.log("low")


def _relative_volume(series: Series) -> Floats:
    """Log volume against its mean of the last 66 sessions."""
    volume = series.log("volume")
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
