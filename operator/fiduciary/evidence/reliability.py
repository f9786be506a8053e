"""Calibration of probability forecasts: do events come as often as they were called likely?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Bins = tuple[float, ...]
"""Of each bin of predicted probabilities: forecasts, sum of their probabilities, events; three numbers a bin."""


def reliability(bins: Sequence[float]) -> float:
    """Σ n_b (ȳ_b - p̄_b)² over the bins: the reliability term of the Brier score, times the number of forecasts.

    Of honest forecasts its expectation is Σ p̄_b (1 - p̄_b) over the bins that have any, whatever the number of
    forecasts, so that windows of unequal size can be ranked together. Source: Murphy (1973), J. Appl. Meteorol. 12,
    equation 6.
    """
    return math.fsum((events - likely) ** 2 / count for count, likely, events in _bins(bins))


def miscalibration(bins: Sequence[float]) -> float:
    """Root mean square of ȳ_b - p̄_b over the forecasts, less what honest ones show: in points of probability, >= 0.

    Source: Bröcker (2012), Climate Dynamics 39, section 3 (the bias of the reliability term), with p̄ in the place of
    the event rate, which under honest forecasts is its expectation.
    """
    total = math.fsum(count for count, _, _ in _bins(bins))
    if total == 0.0:
        return 0.0
    honest = math.fsum(likely / count * (1.0 - likely / count) for count, likely, _ in _bins(bins))
    return math.sqrt(max(0.0, reliability(bins) - honest) / total)


def added(one: Sequence[float], other: Sequence[float]) -> Bins:
    """Both together; an empty one is none."""
    if not one or not other:
        return tuple(one or other)
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _bins(bins: Sequence[float]) -> Iterator[tuple[float, float, float]]:
    for start in range(0, len(bins), 3):
        count, likely, events = bins[start : start + 3]
        if count > 0.0:
            yield count, likely, events
