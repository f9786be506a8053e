"""When an experiment or a drift policy must not act: market hours and frozen days."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fiduciary.api.base import Rule, Shape

_OFFSET = r"(open|close)([+-][0-9]{1,4}(m|h))?"

MarketWindow = Annotated[
    str,
    Field(max_length=32),
    Shape(
        rf"{_OFFSET}/{_OFFSET}",
        "be a window around a session's open or close, for example open-15m/open+30m or close-30m/close",
    ),
]
"""A stretch of each session, relative to its open and close."""

_DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"

FrozenDays = Annotated[
    str,
    Field(max_length=21),
    Shape(rf"{_DAY}/{_DAY}", "be two dates, first and last day included, for example 2026-12-24/2027-01-02"),
    Rule(
        "self.split('/')[0] <= self.split('/')[size(self.split('/')) - 1]", "the first day must not be after the last"
    ),
]
"""A stretch of days, both ends included."""
