"""When a promotion is forbidden by the calendar: frozen days, and stretches around a session's open and close."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.decide.calendar import CalendarUnknown, session_times, zone_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.experiment import ExperimentCalendar

_EDGE = re.compile(r"(open|close)(?:([+-])([0-9]{1,4})(m|h))?")
_LOOK = 12
"""Days around now: the longest closure of an exchange in the tables is shorter."""


@dataclass(frozen=True, slots=True)
class Closure:
    """What the calendar says now. ``until``: when it says something else, if it forbids anything."""

    freeze: str | None = None
    window: str | None = None
    until: datetime | None = None
    unknown: str | None = None


def closure(calendar: ExperimentCalendar | None, calendars: Mapping[str, Any], now: datetime) -> Closure:
    """Whether ``now`` is inside a frozen stretch or a noPromote window. An unknown calendar forbids, and says why."""
    if calendar is None or not (calendar.freeze or calendar.no_promote):
        return Closure()
    try:
        freeze, thaw = _frozen(calendar, calendars, now)
        window, end = _in_window(calendar, calendars, now)
    except CalendarUnknown as error:
        return Closure(unknown=str(error))
    ends = [moment for moment in (thaw, end) if moment is not None]
    return Closure(freeze, window, max(ends, default=None))


def _frozen(
    calendar: ExperimentCalendar, calendars: Mapping[str, Any], now: datetime
) -> tuple[str | None, datetime | None]:
    """Days are the exchange's own; both ends belong to the freeze."""
    zone = zone_of(calendars, calendar.exchange)
    today = now.astimezone(zone).date()
    for stretch in calendar.freeze:
        first, last = (date.fromisoformat(day) for day in stretch.split("/"))
        if first <= today <= last:
            return stretch, datetime.combine(last + timedelta(days=1), time(), zone)
    return None, None


def _in_window(
    calendar: ExperimentCalendar, calendars: Mapping[str, Any], now: datetime
) -> tuple[str | None, datetime | None]:
    if not calendar.no_promote:
        return None, None
    today = now.astimezone(zone_of(calendars, calendar.exchange)).date()
    sessions = _sessions(calendars, calendar.exchange, today)
    for window in calendar.no_promote:
        begins, ends = window.split("/")
        for index, session in enumerate(sessions):
            start, end = _moment(begins, session), _moment(ends, session)
            if end <= start:  # close/open: over the night, to the next session
                following = sessions[index + 1 : index + 2]
                end = _moment(ends, following[0]) if following else start + timedelta(days=_LOOK)
            if start <= now < end:
                return window, end
    return None, None


def _sessions(calendars: Mapping[str, Any], exchange: str, today: date) -> list[tuple[datetime, datetime]]:
    """Sessions around today, which the table must hold; where it ends, nearby days are left out."""
    session_times(calendars, exchange, today)
    sessions: list[tuple[datetime, datetime]] = []
    for offset in range(-_LOOK, _LOOK + 1):
        try:
            times = session_times(calendars, exchange, today + timedelta(days=offset))
        except CalendarUnknown:
            continue
        if times is not None:
            sessions.append(times)
    return sessions


def _moment(edge: str, session: tuple[datetime, datetime]) -> datetime:
    match = _EDGE.fullmatch(edge)
    if match is None:  # admission refuses it; an unknown edge must not open a window
        raise CalendarUnknown(f"{edge!r} is no edge of a session; expected open or close, with an offset such as +30m")
    # Offsets are elapsed time: in UTC, so that a change of the clocks does not move them.
    base = (session[0] if match[1] == "open" else session[1]).astimezone(UTC)
    if match[2] is None:
        return base
    minutes = int(match[3]) * (60 if match[4] == "h" else 1)
    return base + timedelta(minutes=minutes if match[2] == "+" else -minutes)
