"""Is a training due, and which one?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from fiduciary.decide import identity
from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.schedule import ScheduleImpossible, newest_tick, next_tick

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.decide.case import Case

ROLLING = "Rolling"
TICK = "scheduleTick"
REQUEST = "requestId"


@dataclass(frozen=True, slots=True)
class Due:
    """A training that should be claimed."""

    key: str
    as_of: str
    trigger: Mapping[str, str]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class NothingNew:
    """A repetition that was asked for and would repeat a result: ``what`` asked."""

    what: str
    as_of: str


def due(case: Case) -> Due | NothingNew | None:
    """The training that the spec, the newest request, or the schedule asks for; None if there is nothing to do.

    Raises:
        ScheduleImpossible, CalendarUnknown: the schedule cannot be followed.
    """
    current = case.current
    if current is None:
        return _due(case, {}, case.now)
    request = _request(case)
    if request is not None:
        if _repeats(case):
            return NothingNew(request.who, current.as_of)
        return _due(case, {REQUEST: request.id}, case.now)
    tick = _tick(case)
    if tick is not None:
        if _repeats(case):
            return NothingNew("spec.training.schedule", current.as_of)  # without the tick: it would be news each time
        return _due(case, {TICK: tick.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}, tick)
    return None


def planned(case: Case) -> Due | NothingNew | None:
    """As :func:`due`; None where the schedule cannot be followed, which a condition says."""
    try:
        return due(case)
    except (CalendarUnknown, ScheduleImpossible):
        return None


def following_tick(case: Case) -> datetime | None:
    """When the schedule trains next; None without one, or where it would only repeat. Raises as :func:`due`."""
    schedule = case.spec.training.schedule
    if schedule is None or (case.current is not None and _repeats(case)):
        return None
    return next_tick(schedule, _exchange(case), case.world.platform.calendars, case.now)


def _due(case: Case, trigger: Mapping[str, str], at: datetime) -> Due | None:
    as_of = case.spec.data.as_of
    if as_of == ROLLING:
        schedule = case.spec.training.schedule
        zone = ZoneInfo(schedule.time_zone) if schedule is not None and TICK in trigger else UTC
        as_of = at.astimezone(zone).date().isoformat()
    key = identity.training_key(case.spec, as_of, trigger)
    return None if key in case.history.verdicts else Due(key, as_of, trigger)


def _repeats(case: Case) -> bool:
    """Whether training again would only repeat numbers that are stored: fixed data, and a result exists."""
    return case.spec.data.as_of != ROLLING and case.current is not None and case.current.measured is not None


@dataclass(frozen=True, slots=True)
class _Request:
    """A retrain that somebody asked for: ``id`` is the name of a ModelApproval, or a digest of a DriftPolicy's request,
    which no object can be named."""

    id: str
    who: str
    at: float


def _request(case: Case) -> _Request | None:
    """The newest request that no training has answered; older ones are answered with it."""
    people = [
        _Request(act.metadata.name, f"ModelApproval {act.metadata.name}", _created(act))
        for act in case.world.approvals
        if act.spec.decision == "Retrain"
    ]
    policies = [
        _Request(one.digest, f"DriftPolicy {one.policy}", one.at.timestamp())
        for one in case.history.acted
        if one.kind == "Retrain"
    ]
    newest = max((*people, *policies), key=lambda one: (one.at, one.id), default=None)
    if newest is None:
        return None
    answered = {verdict.trigger.get(REQUEST) for verdict in case.history.verdicts.values()}
    return None if newest.id in answered or _before(case, newest) else newest


def _created(act: ModelApproval) -> float:
    created = act.metadata.creation_timestamp
    return 0.0 if created is None else created.timestamp()


def _before(case: Case, request: _Request) -> bool:
    """A request that is older than the newest training of this spec has been answered by it."""
    started = None if case.current is None else _time(case.current.started_at)
    return started is not None and request.at < started.timestamp()


def _tick(case: Case) -> datetime | None:
    schedule, current = case.spec.training.schedule, case.current
    if schedule is None or current is None:
        return None
    since = _time(current.started_at) or current.record.decided_at
    if TICK in current.trigger:
        since = max(since, _time(current.trigger[TICK]) or since)
    return newest_tick(schedule, _exchange(case), case.world.platform.calendars, since, case.now)


def _exchange(case: Case) -> str | None:
    schedule = case.spec.training.schedule
    return (schedule.calendar if schedule is not None else None) or case.spec.data.calendar


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
