"""Ticks of a cron schedule in a time zone, on days with a session.

Ticks that were missed (suspended, operator away, a training still running) collapse into the newest one: training
twice on the same day's data would be the same training.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from fiduciary.decide.calendar import is_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.training import Schedule

LOOK_BACK = timedelta(days=30)
LOOK_AHEAD_DAYS = 400


class ScheduleImpossible(Exception):
    """The schedule names an unknown time zone, or has no tick within a year. The message says which."""


def newest_tick(
    schedule: Schedule, exchange: str | None, calendars: Mapping[str, Any], after: datetime, now: datetime
) -> datetime | None:
    """The newest tick in (``after``, ``now``], looking back 30 days at most; None if there is none.

    Raises:
        ScheduleImpossible: unknown time zone or cron expression.
        CalendarUnknown: the exchange's calendar does not cover the days in question.
    """
    zone = _zone(schedule)
    oldest = max(after, now - LOOK_BACK)
    # The simulator starts after its argument, and `now` itself may be a tick.
    for tick in _simulate(schedule, now.astimezone(zone) + timedelta(minutes=1), reverse=True):
        if tick <= oldest:
            return None
        if tick <= now and _counts(tick, exchange, calendars):
            return tick
    return None


def next_tick(schedule: Schedule, exchange: str | None, calendars: Mapping[str, Any], now: datetime) -> datetime:
    """The first tick after ``now``. Raises as :func:`newest_tick`."""
    zone = _zone(schedule)
    local = now.astimezone(zone)
    for _ in range(LOOK_AHEAD_DAYS):
        tick = next(_simulate(schedule, local), None)
        if tick is None or tick - now > timedelta(days=LOOK_AHEAD_DAYS):
            break
        if _counts(tick, exchange, calendars):
            return tick
        # A minutely schedule on a closed day has 1,440 ticks to leave out: go on at the next midnight.
        local = (tick + timedelta(days=1)).replace(hour=0, minute=0, second=0) - timedelta(seconds=1)
    raise ScheduleImpossible(
        f"schedule {schedule.cron!r} has no tick within {LOOK_AHEAD_DAYS} days; change spec.training.schedule"
    )


def _zone(schedule: Schedule) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleImpossible(
            f"time zone {schedule.time_zone!r} is unknown; use a name such as Europe/Berlin"
        ) from error


def _simulate(schedule: Schedule, start: datetime, *, reverse: bool = False) -> CronSim:
    try:
        return CronSim(schedule.cron, start, reverse=reverse)
    except CronSimError as error:
        raise ScheduleImpossible(f"schedule {schedule.cron!r} cannot be read: {error}; it needs five fields") from error


def _counts(tick: datetime, exchange: str | None, calendars: Mapping[str, Any]) -> bool:
    if exchange is None:
        return True
    table = calendars.get(exchange)
    zone = ZoneInfo(table["timeZone"]) if table else tick.tzinfo
    return is_session(calendars, exchange, tick.astimezone(zone).date())
