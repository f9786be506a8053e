"""Raw samples as Prometheus stores them, and what makes one a count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fiduciary.evidence.refusal import MAX_COUNT

Valued = tuple[Mapping[str, str], float]
"""Labels of one time series, and its value at the moment that was asked for."""


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: labels with ``__name__``, and its samples as (milliseconds since 1970, value), oldest first.

    Values are floats as they were sent: NaN and infinities included. Who reads them decides what they mean.
    """

    labels: Mapping[str, str]
    samples: tuple[tuple[int, float], ...]


def count_of(value: float) -> int | None:
    """The count that a counter's value is; None for what cannot be one: NaN, ±Inf, negative, a fraction, above 2⁵³."""
    if not 0.0 <= value <= MAX_COUNT:  # NaN fails every comparison
        return None
    return int(value) if value == int(value) else None
