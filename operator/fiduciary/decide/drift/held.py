"""Why something that alarms ask for is not done now: what the policy says of its wishes, and the model of requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide import reasons
from fiduciary.decide.calendar import CalendarUnknown, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.api.driftpolicy import DriftPolicySpec
    from fiduciary.decide.drift.world import Acted, Asked


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


def cooling(spec: DriftPolicySpec, acted: Iterable[Acted], policy: str, now: datetime) -> Held | None:
    """The time after the last action of the policy of this name, in which it retrains nothing. After a rollback as
    well: another version serves, and what it sees is not known yet."""
    last = max((one for one in acted if one.policy == policy), key=lambda one: one.at, default=None)
    cooldown = timedelta_of(spec.actions.retrain.cooldown)
    if last is None or now >= last.at + cooldown:
        return None
    until, what = last.at + cooldown, "retrain" if last.kind == "Retrain" else "rollback"
    told = f"this policy's last {what} was recorded at {last.at:%Y-%m-%d %H:%M} UTC; {_not_before(until)}"
    return Held(reasons.COOLING_DOWN, told, until)


def used_up(spec: DriftPolicySpec, acted: Iterable[Acted], kind: Asked, now: datetime) -> Held | None:
    """The budget of all policies of the model together: two of them must not do twice what one may do once."""
    if kind == "Retrain":
        span, most, what = timedelta(days=7), spec.actions.retrain.max_per_week, "retrains in seven days"
    else:
        span, most, what = timedelta(days=1), spec.actions.roll_back.max_per_day, "rollbacks in 24 hours"
    recent = sorted(one.at for one in acted if one.kind == kind and one.at > now - span)
    if len(recent) < most:
        return None
    until = recent[-most] + span
    return Held(reasons.BUDGET_USED_UP, f"{len(recent)} {what}, at most {most}; {_not_before(until)}", until)


def _not_before(moment: datetime) -> str:
    return f"not before {moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def gone_back_to(version: str | None) -> str:
    """Why a rollback ends where one led: in the words of both."""
    return f"version {version} was gone back to, not promoted: what is wrong now did not come with it"
