"""Rank information coefficient of a panel: does the forecast order the entities of a date?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]

FEWEST_ENTITIES = 5
"""Entities that a date needs: below, a rank correlation takes a handful of values only."""


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman (1904) correlation with average ranks; NaN where one side does not vary."""
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0.0 else float("nan")


def daily_rank_ic(rows: Rows) -> tuple[Floats | None, str]:
    """Rank correlation of forecast and outcome over the entities of each date, NaN where a date has too few.

    Returns:
        The daily values, or None with the reason why there are none.
    """
    if rows.entities < FEWEST_ENTITIES:
        return None, f"{rows.entities} entities; ranking a date needs at least {FEWEST_ENTITIES}"
    daily = np.full(len(rows.days), np.nan)
    order = np.argsort(rows.day_index, kind="stable")
    bounds = np.searchsorted(rows.day_index[order], np.arange(len(rows.days) + 1))
    for day in range(len(rows.days)):
        chosen = order[bounds[day] : bounds[day + 1]]
        if len(chosen) >= FEWEST_ENTITIES:
            daily[day] = rank_correlation(rows.prediction[chosen], rows.y[chosen])
    if not np.any(np.isfinite(daily)):
        return None, f"no date has {FEWEST_ENTITIES} entities whose forecasts differ"
    return daily, ""
