"""Facts about rows and predictions that make every other number worthless when they are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]
Dates = NDArray[np.datetime64]
Ints = NDArray[np.int64]


def prediction_sd_ratio(rows: Rows) -> float | None:
    """Standard deviation of the forecasts over that of the outcomes, both within folds (pooled variances).

    Within folds, because a constant that is refitted for each fold varies between them and still predicts nothing.
    None where the outcome does not vary.
    """

    def pooled(values: Floats) -> float:
        parts = [values[rows.fold == number] for number in rows.folds]
        # A constant's computed variance is a rounding error, and a degenerate forecast must read as exactly 0.
        return float(np.sqrt(sum(float(np.var(part)) * len(part) for part in parts if np.ptp(part)) / len(values)))

    spread = pooled(rows.y)
    return pooled(rows.prediction) / spread if spread > 0.0 else None


def train_test_overlap(
    dates: Dates, label_end: Dates, folds: Sequence[tuple[NDArray[np.integer], NDArray[np.integer]]]
) -> int:
    """Training rows whose label interval ``(date, label_end]`` touches that of the fold's test rows, over all folds.

    A training label that ends on the first test decision is known by then and does not touch.
    """
    total = 0
    for train, test in folds:
        first, last = dates[test].min(), label_end[test].max()
        total += int(np.sum((label_end[train] > first) & (dates[train] < last)))
    return total


def duplicate_rows(dates: Dates, entity: NDArray[np.str_]) -> int:
    """Rows beyond the first of each (entity, date): the same decision must not be learned and tested twice."""
    _, day = np.unique(dates, return_inverse=True)
    _, name = np.unique(entity, return_inverse=True)
    keys = day.astype(np.int64) * (int(name.max(initial=0)) + 1) + name
    return len(keys) - len(np.unique(keys))
