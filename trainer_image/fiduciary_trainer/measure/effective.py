"""How many independent rows a walk-forward is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure.hac import TooShort, variance_ratio

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]


def uniqueness(days: NDArray[np.datetime64], label_end: NDArray[np.datetime64]) -> Floats:
    """Average uniqueness of each day's label: the mean over its sessions of 1 / (labels that cover the session).

    The label of day ``t`` covers the sessions after ``t`` up to and including its end. With one-session labels each
    is 1; with labels of h sessions on every day about 1/h, so that the sum is the number of non-overlapping labels.
    Source: López de Prado (2018), Advances in Financial Machine Learning, ch. 4.

    Args:
        days: decision times, ascending and distinct.
        label_end: end of each day's label.
    """
    first = np.arange(1, len(days) + 1)
    last = np.maximum(np.searchsorted(days, label_end, side="right") - 1, first)
    cover = np.zeros(int(last.max()) + 2)
    np.add.at(cover, first, 1.0)
    np.add.at(cover, last + 1, -1.0)
    with np.errstate(divide="ignore"):
        share = np.where(np.cumsum(cover) > 0.0, 1.0 / np.cumsum(cover), 0.0)
    total = np.concatenate([[0.0], np.cumsum(share)])
    return (total[last + 1] - total[first]) / (last - first + 1)


def effective_rows(rows: Rows) -> float:
    """``min(sum of uniqueness, n g0/LRV)``: days less what overlapping labels and serial dependence take away.

    The first term counts non-overlapping labels (:func:`uniqueness`); the second is the number of independent days
    whose mean forecast error ``y - p`` would have the same variance, with the Newey-West long-run variance over 20
    lags. Errors rather than losses: the loss of a return follows its volatility for months, which says nothing about
    how often the forecast was put to the test. A panel counts each date once. With fewer days than the long-run
    variance needs, the first term stands alone.
    """
    ends = np.full(len(rows.days), np.datetime64(0, "ns"), dtype="datetime64[ns]")
    np.maximum.at(ends, rows.day_index, rows.label_end.astype("datetime64[ns]"))
    distinct = float(uniqueness(rows.days, ends).sum())
    try:
        return min(distinct, len(rows.days) / variance_ratio(rows.daily(rows.y - rows.prediction)))
    except (TooShort, ZeroDivisionError):
        return distinct
