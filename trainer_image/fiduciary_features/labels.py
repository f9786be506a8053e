"""Labels, and when each one is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fiduciary_features.definitions import OHLC
from fiduciary_features.logarithm import log
from fiduciary_features.series import Series

if TYPE_CHECKING:
    from fiduciary_features.bars import Bars

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]
LabelKind = Literal["Direction", "Return", "Volatility"]
LABEL_KINDS: tuple[LabelKind, ...] = ("Direction", "Return", "Volatility")


@dataclass(frozen=True)
class Labels:
    """Outcomes of decisions at each row; all ``(T,)``, NaN or NaT where they are not known yet.

    Attributes:
        y: Volatility: log of the root of the mean Garman-Klass variance of the next ``horizon`` sessions; Direction:
            1.0 where the column is higher ``horizon`` sessions later, else 0.0; Return: its log return till then.
        end: time of the last row that ``y`` reads, ``datetime64[ns]``.
        next_return: simple return of the column over the one session after the decision.
    """

    y: Floats
    end: Times
    next_return: Floats


def label_columns(kind: LabelKind, column: str) -> tuple[str, ...]:
    """Columns that the label reads. Volatility is Garman-Klass, whatever ``column`` says the price is."""
    return OHLC if kind == "Volatility" else (column,)


def labels(bars: Bars, kind: LabelKind, column: str, horizon: int) -> Labels:
    """Compute labels, entity by entity.

    Args:
        bars: sorted by (time, entity).
        kind: see :class:`Labels`.
        column: price column of Direction, Return and of ``next_return``.
        horizon: rows of the same entity that the label covers, at least 1.

    Raises:
        MissingColumn: a column is not in ``bars``.
    """
    columns = {name: bars.column(name) for name in dict.fromkeys((*label_columns(kind, column), column))}
    y = np.full(len(bars), np.nan)
    next_return = np.full(len(bars), np.nan)
    end = np.full(len(bars), np.datetime64("NaT", "ns"))
    for rows in bars.each_entity():
        price = columns[column][rows]
        now, later = rows[:-horizon], rows[horizon:]
        next_return[rows[:-1]] = price[1:] / price[:-1] - 1.0
        end[now] = bars.time[later]
        if kind == "Volatility":
            variance = Series({name: columns[name][rows] for name in OHLC}).garman_klass_variance
            y[now] = _log_volatility_ahead(variance, horizon)
        elif kind == "Return":
            y[now] = log(price[horizon:] / price[:-horizon])
        else:
            known = np.isfinite(price[horizon:]) & np.isfinite(price[:-horizon])
            y[now] = np.where(known, price[horizon:] > price[:-horizon], np.nan)
    y[~np.isfinite(y)] = np.nan
    next_return[~np.isfinite(next_return)] = np.nan
    return Labels(y, end, next_return)


def _log_volatility_ahead(variance: Floats, horizon: int) -> Floats:
    """``(T - horizon,)``; NaN where a session of the window is missing or none had a range."""
    total = np.zeros(len(variance) - horizon) if len(variance) > horizon else np.zeros(0)
    for ahead in range(1, horizon + 1):
        total = total + variance[ahead : len(variance) - horizon + ahead]
    mean = total / horizon
    return 0.5 * log(mean)
