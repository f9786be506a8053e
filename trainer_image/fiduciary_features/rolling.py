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
    total = np.zeros_like(values)
    known = np.zeros_like(values)
    for back in range(min(rows, len(values)) - 1, -1, -1):
        past = values[: len(values) - back]
        there = np.isfinite(past)
        total[back:] += np.where(there, past, 0.0)
        known[back:] += there
    result = np.full_like(values, np.nan)
    enough = (known >= PRESENT * rows) & np.isfinite(values)
    enough[: rows - 1] = False
    np.divide(total, known, out=result, where=enough)
    return result
