"""The columns of one instrument, with what several features share computed once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import rolling
from fiduciary_features.logarithm import log

if TYPE_CHECKING:
    from collections.abc import Mapping

Floats = NDArray[np.float64]

GARMAN_KLASS_BODY = 2.0 * 0.6931471805599453 - 1.0
"""2 ln 2 - 1."""


class Series:
    """Rows of one instrument in order of time.

    Args:
        columns: ``(T,) float64`` by name, NaN where a value is missing.
    """

    def __init__(self, columns: Mapping[str, Floats]) -> None:
        self._columns = columns
        self._returns: dict[int, Floats] = {}

    def column(self, name: str) -> Floats:
        return self._columns[name]

    def log(self, name: str) -> Floats:
        """Natural logarithm of a column; NaN where there is none."""
        return self._logs[name]

    def log_return(self, rows: int) -> Floats:
        """Log return of the close over the last ``rows`` sessions."""
        known = self._returns.get(rows)
        if known is None:
            close = self.log("close")
            known = self._returns[rows] = close - rolling.lag(close, rows)
        return known

    @cached_property
    def _logs(self) -> Mapping[str, Floats]:
        # All columns in one call: for the few rows of a request the calls cost more than the numbers.
        return dict(zip(self._columns, log(np.stack(list(self._columns.values()))), strict=True))

    @cached_property
    def garman_klass_variance(self) -> Floats:
        """Variance of each session's log price, from its range and its body; the overnight move is not in it."""
        spread = self.log("high") - self.log("low")
        body = self.log("close") - self.log("open")
        return 0.5 * spread * spread - GARMAN_KLASS_BODY * body * body

    @cached_property
    def log_volatility(self) -> Floats:
        """Log of the session's Garman-Klass standard deviation. NaN for a session without any range."""
        return 0.5 * log(self.garman_klass_variance)
