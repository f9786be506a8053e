"""Why something that alarms ask for is not done now: what the policy says of its wishes, and the model of requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.decide import reasons
from fiduciary.decide.calendar import CalendarUnknown, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Held:
    """Why what alarms ask for is not asked of the model, or not carried out. ``until``: when that ends by itself."""

    reason: str
    message: str
    until: datetime | None = None


def frozen(stretches: Iterable[str], calendars: Mapping[str, Any], exchange: str, now: datetime) -> Held | None:
    """The stretch of days without retrain (``guards.freeze``) in which the exchange's today lies."""
    stretches = tuple(stretches)
    if not stretches:
        return None
    try:
        zone = zone_of(calendars, exchange)
    except CalendarUnknown as error:
        return Held(reasons.CALENDAR_UNKNOWN, f"{error}; days without retrain cannot be told from others")
    today = now.astimezone(zone).date()
    for stretch in stretches:
        try:
            first, last = (date.fromisoformat(day) for day in stretch.split("/"))
        except ValueError:  # a day such as 2026-02-31, which no rule of the API server sees
            return Held(reasons.CALENDAR_UNKNOWN, f"guards.freeze {stretch} is no stretch of days: correct it")
        if first <= today <= last:
            thaw = datetime.combine(last + timedelta(days=1), datetime.min.time(), zone) if last < date.max else None
            return Held(reasons.IN_FREEZE, f"guards.freeze: no retrain from {first} to {last}", thaw)
    return None


def gone_back_to(version: str | None) -> str:
    """Why a rollback ends where one led: in the words of both."""
    return f"version {version} was gone back to, not promoted: what is wrong now did not come with it"
