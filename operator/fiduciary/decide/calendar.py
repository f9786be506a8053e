"""Exchange calendars as a table: which days have a session.

The table is made by ``operator/calendars/generate.py`` when the image is built, from exchange_calendars; the operator
carries the result only. ``24/7`` needs no table.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ALWAYS_OPEN = "24/7"


class CalendarUnknown(Exception):
    """The table does not hold this exchange, or not this day. The message says what to do."""


def is_session(calendars: Mapping[str, Any], exchange: str, day: date) -> bool:
    """Whether the exchange has a session on this day (its own date).

    Raises:
        CalendarUnknown: the exchange or the day is not in the table.
    """
    if exchange == ALWAYS_OPEN:
        return True
    table = calendars.get(exchange)
    if table is None:
        known = ", ".join(sorted(calendars)) or "none"
        raise CalendarUnknown(f"exchange {exchange!r} is not in this operator's calendars; it knows {known}")
    if not date.fromisoformat(table["from"]) <= day <= date.fromisoformat(table["to"]):
        raise CalendarUnknown(
            f"the calendar of {exchange} covers {table['from']} to {table['to']}, not {day}; update the operator"
        )
    return table["weekmask"][day.weekday()] == "1" and day.isoformat() not in table["holidays"]
