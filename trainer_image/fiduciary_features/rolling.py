"""Windows over the past of one series, oldest row first.

Every result at row t is a function of the rows of its window alone, added in one fixed order: the same window gives the
same bits, however long the series around it is. A cumulative sum or numpy's pairwise mean would not do that, and the
server, which holds a short history, would then disagree with training in the last digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRESENT = 0.75
"""Share of a window that must be known. One missing day must not blank out 66 rows."""

_CHUNK = 8192
"""Windows added at a time: a long history must not be held once for every row of a window."""


def lag(values: Floats, rows: int) -> Floats:
    """The value ``rows`` rows earlier; NaN where the series had not begun."""
    result = np.full_like(values, np.nan)
    if rows < len(values):
        result[rows:] = values[: len(values) - rows]
    return result


def mean(values: Floats, rows: int) -> Floats:
    """Mean of the last ``rows`` rows, this one included, over the values that are known.

    NaN where this row is missing, the window is not filled, or less than :data:`PRESENT` of it is known.
    """
    result = np.full_like(values, np.nan)
    if rows > len(values):
        return result
    there = np.isfinite(values)
    if there.all():
        np.divide(_totals(values, rows), rows, out=result[rows - 1 :])
        return result
    before = np.concatenate(([0], np.cumsum(there)))
    known = before[rows:] - before[:-rows]
    enough = (known >= PRESENT * rows) & there[rows - 1 :]
    np.divide(_totals(np.where(there, values, 0.0), rows), known, out=result[rows - 1 :], where=enough)
    return result


def _totals(values: Floats, rows: int) -> Floats:
    """Sum of each full window, oldest value first."""
    values = np.ascontiguousarray(values)
    step = values.itemsize
    # sliding_window_view, without its ten microseconds of checks: a request pays them for every feature.
    windows = np.ndarray((len(values) - rows + 1, rows), values.dtype, values, strides=(step, step))
    total = np.empty(len(windows))
    for start in range(0, len(windows), _CHUNK):
        # accumulate, not sum: each addition's result is one that could be looked at, so its order is fixed.
        total[start : start + _CHUNK] = np.add.accumulate(windows[start : start + _CHUNK], axis=1)[:, -1]
    return total
