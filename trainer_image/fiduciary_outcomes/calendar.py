"""Sessions of an exchange: to which one a decision belongs, when its label ends, when that is on the clock.

The table is the one that ``operator/calendars/generate.py`` makes. ``24/7`` needs none: every day is a session and ends
at midnight UTC.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from fiduciary_outcomes.document import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ALWAYS_OPEN = "24/7"


class OutsideCalendar(Exception):
    """The day lies outside of what the table covers. The message says what to do."""


class Calendar(Protocol):
    """Sessions are named by their date, as ISO text: it sorts as the dates do."""

    def session_of(self, time: str) -> str:
        """The session of a decision whose features are of ``time``; that before it where its day has none."""
        ...

    def ahead(self, session: str, steps: int) -> str:
        """The session ``steps`` later (earlier where negative)."""
        ...

    def ends(self, session: str) -> float:
        """When the session closes, in seconds since 1970."""
        ...

    def last_ended(self, now: float) -> str:
        """The newest session whose close is not after ``now``."""
        ...


def instant(time: str) -> datetime:
    """ISO 8601 date (midnight UTC) or date-time, in UTC where it says no zone.

    Raises:
        ValueError: it is neither.
    """
    found = datetime.fromisoformat(time)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@lru_cache(maxsize=65536)
def canonical_time(time: str) -> str:
    """One spelling for one instant, in UTC: a date alone at midnight, else with ``Z`` and the fraction it has.

    Raises:
        ValueError: not an ISO 8601 date or date-time.
    """
    found = instant(time)
    if (found.hour, found.minute, found.second, found.microsecond) == (0, 0, 0, 0):
        return found.date().isoformat()
    return found.replace(tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True)
class PlainDays:
    """Every day is a session, from midnight to midnight UTC."""

    def session_of(self, time: str) -> str:
        return time[:10]

    def ahead(self, session: str, steps: int) -> str:
        return (date.fromisoformat(session) + timedelta(days=steps)).isoformat()

    def ends(self, session: str) -> float:
        return instant(self.ahead(session, 1)).timestamp()

    def last_ended(self, now: float) -> str:
        return (datetime.fromtimestamp(now, UTC).date() - timedelta(days=1)).isoformat()


class Exchange:
    """An exchange of the table."""

    def __init__(self, code: str, table: Mapping[str, Any]) -> None:
        self.code = code
        self.zone = ZoneInfo(table["timeZone"])
        first, last = date.fromisoformat(table["from"]), date.fromisoformat(table["to"])
        holidays = frozenset(table["holidays"])
        days = (first + timedelta(days=i) for i in range((last - first).days + 1))
        open_days = (day.isoformat() for day in days if table["weekmask"][day.weekday()] == "1")
        self.sessions = [day for day in open_days if day not in holidays]
        special = table["special"]
        self._closes = [self._at(day, special[day][1] if day in special else table["close"]) for day in self.sessions]
        self.covers = f"{table['from']} to {table['to']}"
        self._first, self._last = table["from"], table["to"]

    def _at(self, day: str, clock: str) -> float:
        return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=self.zone).timestamp()

    def _outside(self, what: str) -> OutsideCalendar:
        return OutsideCalendar(
            f"the calendar of {self.code} covers {self.covers}, not {what}; run a newer image of the scorer"
        )

    def session_of(self, time: str) -> str:
        # A date alone is the exchange's own date, not an instant that is still the day before in New York.
        day = time if len(time) == 10 else instant(time).astimezone(self.zone).date().isoformat()
        index = bisect_right(self.sessions, day) - 1
        if index < 0 or not self._first <= day <= self._last:
            raise self._outside(day)
        return self.sessions[index]

    def ahead(self, session: str, steps: int) -> str:
        index = bisect_right(self.sessions, session) - 1 + steps
        if not 0 <= index < len(self.sessions) or not self._first <= session <= self._last:
            raise self._outside(f"{abs(steps)} sessions {'after' if steps >= 0 else 'before'} {session}")
        return self.sessions[index]

    def ends(self, session: str) -> float:
        return self._closes[bisect_right(self.sessions, session) - 1]

    def last_ended(self, now: float) -> str:
        index = bisect_right(self._closes, now) - 1
        if index < 0 or now > self._closes[-1] + 7 * 86400:
            raise self._outside(datetime.fromtimestamp(now, UTC).date().isoformat())
        return self.sessions[index]


class Calendars:
    """All exchanges of one table, each unpacked when it is first asked for."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self._tables = tables
        self._known: dict[str, Calendar] = {ALWAYS_OPEN: PlainDays()}

    @classmethod
    def read(cls, path: Path | None) -> Calendars:
        return cls({} if path is None or not path.exists() else json.loads(path.read_text()))

    def get(self, name: str) -> Calendar:
        """Raises :class:`Refused` with the names that there are."""
        if name not in self._known:
            if name not in self._tables:
                known = ", ".join([ALWAYS_OPEN, *sorted(self._tables)])
                raise Refused("UnknownCalendar", f"calendar is {name!r:.60}; this scorer knows {known}")
            self._known[name] = Exchange(name, self._tables[name])
        return self._known[name]
