"""Decision times to sessions, as the scorer does for live ones (docs/outcomes.md)."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ALWAYS_OPEN = "24/7"
_MARGIN = timedelta(days=14)
"""A calendar needs a few sessions to be built; two weeks around always hold some."""


def session_of(calendar: str, times: Iterable[str]) -> Callable[[str], str]:
    """Function from a decision time (ISO 8601) to the date of its session.

    Args:
        calendar: exchange code, or ``24/7``: plain days, UTC.
        times: all that will be asked for.

    Raises:
        BadContract: ``calendar`` is unknown.
    """
    if calendar == ALWAYS_OPEN:
        return lambda time: time[:10]
    import exchange_calendars  # half a second, only needed here
    from exchange_calendars.errors import InvalidCalendarName

    days = sorted({time[:10] for time in times})
    first, last = (date.fromisoformat(day) for day in (days[0], days[-1]))
    try:
        exchange = exchange_calendars.get_calendar(calendar, start=first - _MARGIN, end=last + _MARGIN)
    except InvalidCalendarName:
        raise BadContract(
            "UnknownCalendar", f"data.calendar is {calendar!r}; expected an exchange code such as XNYS, XLON or 24/7"
        ) from None
    sessions = [f"{session:%Y-%m-%d}" for session in exchange.sessions]

    def of(time: str) -> str:
        # A date alone is the exchange's own date, not an instant that is still the day before in New York.
        day = time
        if len(time) > 10:
            instant = datetime.fromisoformat(time)
            instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
            day = f"{instant.astimezone(exchange.tz):%Y-%m-%d}"
        return sessions[bisect_right(sessions, day) - 1]

    return of
