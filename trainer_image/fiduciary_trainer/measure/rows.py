"""The out-of-sample rows of a walk-forward as plain arrays, and their reduction to one value per date."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dates = NDArray[np.datetime64]


@dataclass(frozen=True)
class Quantiles:
    """Forecasts of quantiles, and the baselines'.

    Attributes:
        levels: K, ascending.
        values: ``(n, K)``, ascending in each row, in the unit of ``y``.
        baselines: the same of each baseline (:mod:`fiduciary_trainer.quantile_baselines`).
    """

    levels: tuple[float, ...]
    values: Floats
    baselines: Mapping[str, Floats]

    def take(self, rows: Ints) -> Quantiles:
        return Quantiles(
            self.levels, self.values[rows], {name: values[rows] for name, values in self.baselines.items()}
        )


@dataclass(frozen=True)
class Rows:
    """Test rows only, in order of (date, entity); all arrays have the same length.

    Attributes:
        dates: decision time, ``datetime64[ns]``.
        label_end: when the outcome became known; ``label_end > dates``.
        entity: name of the instrument, shape ``(n,)``; a single series has one name throughout.
        fold: number of the fold whose test rows hold this one, from 0.
        y: outcome. Volatility: log volatility; Direction: 0 or 1; Return: return over the horizon.
        prediction: in the unit of ``y`` (Direction: probability of 1).
        baselines: prediction of each baseline, same unit, by its name.
        returns: simple return of the instrument over the **one** session after the decision, for PnL; NaN if unknown.
        quantiles: of the same rows, where the job asks for them.
    """

    dates: Dates
    label_end: Dates
    entity: NDArray[np.str_]
    fold: Ints
    y: Floats
    prediction: Floats
    baselines: Mapping[str, Floats]
    returns: Floats
    quantiles: Quantiles | None = None

    @cached_property
    def days(self) -> Dates:
        """The distinct decision times, ascending."""
        return np.unique(self.dates)

    @cached_property
    def day_index(self) -> Ints:
        """For each row the position of its date in :attr:`days`."""
        return np.searchsorted(self.days, self.dates).astype(np.int64)

    @cached_property
    def fold_of_day(self) -> Ints:
        """Fold number of each day. Folds are split by time, so a day belongs to one fold."""
        result = np.empty(len(self.days), dtype=np.int64)
        result[self.day_index] = self.fold
        return result

    @property
    def folds(self) -> list[int]:
        return [int(number) for number in np.unique(self.fold)]

    @property
    def entities(self) -> int:
        return len(np.unique(self.entity))

    def daily(self, values: Floats) -> Floats:
        """Mean over the entities of each date of one value per row, shape ``(days,)``."""
        sums = np.bincount(self.day_index, weights=values, minlength=len(self.days))
        return sums / np.bincount(self.day_index, minlength=len(self.days))
