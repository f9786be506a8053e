"""Exchange calendars as a table: which days have a session, and when it opens and closes.

The table is made by ``operator/calendars/generate.py`` when the image is built, from exchange_calendars; the operator
carries the result only. ``24/7`` needs no table.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

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


def session_times(calendars: Mapping[str, Any], exchange: str, day: date) -> tuple[datetime, datetime] | None:
    """Open and close of the session of this day; None if it has none. ``24/7`` is open from midnight to midnight UTC.

    Raises:
        CalendarUnknown: as :func:`is_session`.
    """
    if not is_session(calendars, exchange, day):
        return None
    if exchange == ALWAYS_OPEN:
        start = datetime.combine(day, time(), UTC)
        return start, start + timedelta(days=1)
    table = calendars[exchange]
    opens, closes = table["special"].get(day.isoformat(), (table["open"], table["close"]))
    zone = ZoneInfo(table["timeZone"])
    close = datetime.combine(day, time.fromisoformat(closes), zone)
    open_ = datetime.combine(day, time.fromisoformat(opens), zone)
    # Futures sessions open on the evening before.
    return (open_ if open_ < close else open_ - timedelta(days=1)), close


def open_between(calendars: Mapping[str, Any], exchange: str, since: datetime, until: datetime) -> bool:
    """Whether a part of any session lies between two moments. Raises CalendarUnknown as :func:`is_session`."""
    day = since.date() - timedelta(days=1)  # of the exchange's own date, which may be another than UTC's
    while day <= until.date() + timedelta(days=1):
        times = session_times(calendars, exchange, day)
        if times is not None and times[0] < until and since < times[1]:
            return True
        day += timedelta(days=1)
    return False


def zone_of(calendars: Mapping[str, Any], exchange: str) -> ZoneInfo:
    """The time zone in which the exchange counts its days. Raises CalendarUnknown as :func:`is_session`."""
    if exchange == ALWAYS_OPEN:
        return ZoneInfo("UTC")
    if exchange not in calendars:
        is_session(calendars, exchange, date.min)  # says what is known
    return ZoneInfo(calendars[exchange]["timeZone"])
