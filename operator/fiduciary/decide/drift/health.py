"""Whether a policy can see: why nothing, or nothing new, is judged. Unknown is neither drift nor health."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.calendar import CalendarUnknown, session_times
from fiduciary.decide.experiment.times import at

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.drift.case import Case

LATE_SESSIONS = 2
"""Sessions without a new row after which counts are stale: a row comes with each session, some hours after it."""
LATE_WINDOWS = 2
LONGEST_LOOK = 400
"""Days."""


@dataclass(frozen=True, slots=True)
class Blind:
    """Why nothing is judged. ``person``: somebody has to act; else it passes by itself."""

    reason: str
    message: str
    person: bool = False


def blind(case: Case) -> Blind | None:
    """The first reason that holds; None: it sees."""
    return next((found for look in LOOKS if (found := look(case)) is not None), None)


def _no_model(case: Case) -> Blind | None:
    if case.model is None:
        name = case.spec.model_ref.name
        return Blind(reasons.MODEL_MISSING, f"there is no FinancialModel {name} in this namespace: create it", True)
    return None


def _unreadable(case: Case) -> Blind | None:
    if not case.world.unreadable:
        return None
    told = f"{case.world.unreadable}; delete the policy and create it anew: its detectors begin with the next window"
    return Blind(reasons.EVIDENCE_UNREADABLE, told, True)


def _no_champion(case: Case) -> Blind | None:
    if case.version is None:
        return Blind(reasons.NOTHING_SERVES, "no version of the model serves: nothing is counted")
    return None


def _spec(case: Case) -> Blind | None:
    return Blind(reasons.SPEC_REFUSED, case.spec_refused, True) if case.spec_refused else None


def _no_reference(case: Case) -> Blind | None:
    if case.calibrated is None:
        if case.world.unread:
            told = (
                f"the drift reference of the serving version cannot be read; it is asked for again: {case.world.unread}"
            )
            return Blind(reasons.REFERENCE_UNREAD, told)
        return Blind(reasons.REFERENCE_PENDING, "the drift reference of the serving version is being read")
    return None


def _edges(case: Case) -> Blind | None:
    if not case.counts_refused:
        return None
    if case.world.reference is None and (case.world.health.message or not _rows(case)):
        return None  # nobody was asked yet, or nobody has answered
    return Blind(reasons.REFERENCE_DIFFERS, case.counts_refused, case.world.reference is not None)


def _rows(case: Case) -> bool:
    """Was any row of this version counted?"""
    kept, calibrated = case.world.state, case.calibrated
    known = kept is not None and calibrated is not None and kept.key == calibrated.key and kept.rows > 0
    return known or any(reading.rows > 0 for reading in case.world.readings)


def _prometheus(case: Case) -> Blind | None:
    its = case.world.health
    reason = reasons.CATCHING_UP if its.catching_up else reasons.COUNTERS_UNREACHABLE
    return Blind(reason, its.message, its.person) if its.message else None


def _sessions(case: Case) -> Blind | None:
    return Blind(reasons.EVIDENCE_REFUSED, case.sessions_refused, True) if case.sessions_refused else None


def _stale(case: Case) -> Blind | None:
    calibrated, state = case.calibrated, case.state
    if calibrated is None or state is None or state.grown < 0:
        return None
    grown = at(state.grown // 1000)
    length = calibrated.grid.length
    try:
        passed = _windows_since(case, grown, length) if length else _closed_since(case, grown)
    except CalendarUnknown as error:
        return Blind(reasons.CALENDAR_UNKNOWN, f"{error}; whether rows are late cannot be told", True)
    if passed <= (LATE_WINDOWS if length else LATE_SESSIONS):
        return None
    what = (
        f"{passed} windows of {case.spec.window.length} in which {case.exchange} is open have ended since"
        if length
        else f"{case.exchange} has closed {passed} sessions since"
    )
    told = f"no new row since {grown:%Y-%m-%d %H:%M} UTC, and {what}"
    return Blind(reasons.STALE, f"{told}: see that clients ask for predictions and that records reach the scorer")


def _closed_since(case: Case, since: datetime) -> int:
    """Sessions that closed after ``since`` and before now; counting ends once it is sure that rows are late."""
    passed, day = 0, since.date()
    for _ in range(LONGEST_LOOK):
        if day > case.moment.date() or passed > LATE_SESSIONS:
            break
        times = session_times(case.calendars, case.exchange, day)
        passed += times is not None and since < times[1] <= case.moment
        day += timedelta(days=1)
    return passed


def _windows_since(case: Case, since: datetime, length: int) -> int:
    """Whole windows between ``since`` and now in which the exchange is open for some time; counting ends as above.
    Nobody asks for predictions at night."""
    begins, now = -(-round(since.timestamp() * 1000) // length), case.now * 1000 // length
    passed, day = 0, since.date() - timedelta(days=1)
    for _ in range(LONGEST_LOOK):
        if day > case.moment.date() + timedelta(days=1) or passed > LATE_WINDOWS:
            break
        times = session_times(case.calendars, case.exchange, day)
        if times is not None:
            opens, closes = (round(time.timestamp() * 1000) for time in times)
            first, after = max(begins, opens // length), min(now, -(-closes // length))
            passed += max(0, after - first)
            begins = max(begins, after)
        day += timedelta(days=1)
    return passed


def _last_window(case: Case) -> Blind | None:
    state = case.state
    if state is None or not state.why:
        return None
    return Blind(reasons.WINDOW_NOT_JUDGED, f"the last window was not judged: {state.why}")


def _first_window(case: Case) -> Blind | None:
    calibrated, state = case.calibrated, case.state
    if (
        calibrated is None
        or state is None
        or state.folded
        or not any(its.histogram or its.missing for its in case.spec.monitors)
    ):
        return None
    if calibrated.grid.length:
        return Blind(reasons.FIRST_WINDOW, f"no window of {case.spec.window.length} has begun and ended yet")
    rows = calibrated.grid.rows
    if state.edge is None and state.window >= 0:
        begins = (state.window + 2) * rows
        return Blind(
            reasons.FIRST_WINDOW, f"{state.rows} rows were counted; the first whole window begins after {begins}"
        )
    counted = state.rows - (0 if state.edge is None else state.edge.rows)
    return Blind(reasons.FIRST_WINDOW, f"{counted} of the {rows} rows of the first window were counted")


LOOKS = (
    *(_unreadable, _no_model, _no_champion, _spec, _no_reference, _edges),
    *(_prometheus, _sessions, _stale, _last_window, _first_window),
)
