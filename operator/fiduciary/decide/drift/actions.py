"""What alarms ask for, and what holds it: a chain of small rules, the first that holds says why.

Input drift alone never rolls back: the version before has seen even older data. What is asked for is published, and
carried out by the FinancialModel alone, one request at a time, through its decision log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide import identity, reasons
from fiduciary.decide.calendar import CalendarUnknown, is_session
from fiduciary.decide.drift import health
from fiduciary.decide.drift.held import Held, cooling, frozen, gone_back_to, used_up
from fiduciary.decide.drift.state import Request

if TYPE_CHECKING:
    from fiduciary.api.driftpolicy import Monitor
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.state import Alarm, State
    from fiduciary.decide.drift.world import Acted, Asked

MOST_WITHDRAWN = 4
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wish:
    """One action that firing alarms ask for; ``held`` None: it is asked of the model."""

    kind: Asked
    alarms: tuple[Alarm, ...]
    held: Held | None

    @property
    def digest(self) -> str:
        return identity.digest([self.kind, sorted(alarm.digest for alarm in self.alarms)])


def wishes(case: Case) -> tuple[Wish, ...]:
    """The actions that alarms ask for, the strongest first: a rollback serves within seconds, a retrain in hours."""
    found: list[Wish] = []
    for kind in ("RollBack", "Retrain"):
        alarms = _asking(case, kind)
        if alarms:
            held = next((held for rule in RULES[kind] if (held := rule(case)) is not None), None)
            found.append(Wish(kind, alarms, held or _outcomes_unread(case, alarms)))
    return tuple(found)


def request(case: Case, asked: tuple[Wish, ...]) -> Request | None:
    """What is published: the request that stands while its alarms do and nothing holds it, else a new one."""
    free = [wish for wish in asked if wish.held is None]
    standing = case.state.request if case.state is not None else None
    if standing is not None:
        same = next((wish for wish in free if wish.kind == standing.kind), None)
        alarmed = () if same is None else tuple(alarm.monitor for alarm in same.alarms)
        stronger = any(wish.kind == "RollBack" for wish in free) and standing.kind != "RollBack"
        if same is not None and not stronger and any(monitor in alarmed for monitor in standing.monitors):
            return standing
    if not free:
        return None
    wish = free[0]
    message = "; ".join(f"{alarm.monitor}: {alarm.message}" for alarm in wish.alarms)
    return Request(wish.kind, tuple(alarm.monitor for alarm in wish.alarms), wish.digest, case.now, message)


def withdrawn(state: State, now: Request | None) -> tuple[Request, ...]:
    """The requests that were taken back, with the one that is now. The model may have read it before, and be about to
    record it: what it records then is no less done."""
    before = state.request
    if before is None or (now is not None and now.digest == before.digest):
        return state.withdrawn
    others = tuple(one for one in state.withdrawn if one.digest != before.digest)
    return (before, *others)[:MOST_WITHDRAWN]


def may_roll_back(monitor: Monitor) -> bool:
    """Only where the inputs are broken or the results are worse than the previous version's on the same sessions."""
    return monitor.beside_previous if monitor.realised else monitor.histogram is None


def _asking(case: Case, kind: Asked) -> tuple[Alarm, ...]:
    monitors = {its.name: its for its in case.spec.monitors}
    if case.state is None:
        return ()
    # A value that is within its limit again is no reason to act, though its alarm is not over yet.
    calm = {limit.monitor for limit in case.state.limits if limit.quiet}
    return tuple(
        alarm
        for alarm in case.state.alarms
        if alarm.until is None
        and alarm.monitor not in calm
        and (its := monitors.get(alarm.monitor)) is not None
        and kind in its.actions
        and (kind != "RollBack" or may_roll_back(its))
    )


def _outcomes_unread(case: Case, alarms: tuple[Alarm, ...]) -> Held | None:
    """What only outcomes say is asked for only while they can be seen."""
    realised = {its.name for its in case.spec.monitors if its.realised}
    if case.world.outcomes and all(alarm.monitor in realised for alarm in alarms):
        return Held(reasons.OUTCOMES_UNREAD, case.world.outcomes)
    return None


# --- what holds any action -------------------------------------------------------------------------------------------


def _killed(case: Case) -> Held | None:
    if case.model is not None and case.model.killed:
        return Held(reasons.KILL_ENGAGED, "the kill switch of the model is engaged; only a person clears it")
    return None


def _suspended(case: Case) -> Held | None:
    if case.model is not None and case.model.suspended:
        return Held(reasons.SUSPENDED, "the model is suspended (spec.suspend): nothing new is started")
    return None


def _deleted(case: Case) -> Held | None:
    if case.world.policy.metadata.deletion_timestamp is not None:
        return Held(reasons.DELETING, "the policy is being deleted")
    return None


def _dry_run(case: Case) -> Held | None:
    return Held(reasons.DRY_RUN, "guards.dryRun is true: nothing is asked for") if case.spec.guards.dry_run else None


def _unseen(case: Case) -> Held | None:
    """No data is never a reason to act: an alarm of before stands, and waits until it can be seen whether it lasts."""
    blind = health.blind(case)
    if blind is None or blind.reason in (reasons.FIRST_WINDOW, reasons.WINDOW_NOT_JUDGED, reasons.EVIDENCE_REFUSED):
        return None
    return Held(blind.reason, blind.message)


# --- a retrain -------------------------------------------------------------------------------------------------------


def _fixed(case: Case) -> Held | None:
    if case.model is not None and not case.model.rolling:
        return Held(
            reasons.NOTHING_NEW, "spec.data.asOf of the model is a fixed date: a retrain would read the same rows"
        )
    return None


def _frozen(case: Case) -> Held | None:
    return frozen(case.spec.guards.freeze, case.calendars, case.exchange, case.moment)


def _busy(case: Case) -> Held | None:
    if case.model is not None and case.model.busy:
        return Held(reasons.MODEL_BUSY, f"{case.model.busy}: one thing at a time")
    return None


def _acted(case: Case) -> tuple[Acted, ...]:
    return () if case.model is None else case.model.acted


def _cooling(case: Case) -> Held | None:
    return cooling(case.spec, _acted(case), case.name, case.moment)


def _few_rows(case: Case) -> Held | None:
    needed = case.spec.actions.retrain.min_new_rows
    model = case.model
    if needed == 0 or model is None or model.champion is None:
        return None
    try:
        # What gates refused was trained as well: to try the same rows until they pass would be fishing.
        since = date.fromisoformat(max(model.champion.as_of or "", model.trained_to))
    except ValueError:
        return Held(reasons.TOO_FEW_NEW_ROWS, "it is not known up to which date the version was trained")
    new = new_rows(case, since, needed)
    if new >= needed:
        return None
    return Held(
        reasons.TOO_FEW_NEW_ROWS,
        f"{new} new rows per entity since {since}, actions.retrain.minNewRows is {needed}: wait for them",
    )


def new_rows(case: Case, since: date, enough: int) -> int:
    """Rows per entity after ``since`` up to yesterday, by the exchange's sessions; counting ends at ``enough``.

    Days that the calendar does not hold are not counted: too few rows wait, too many would train on nothing new.
    """
    grid = None if case.calibrated is None else case.calibrated.grid
    a_day = 1.0
    if grid is not None and grid.length and grid.per_entity:
        a_day = max(1.0, grid.per_entity * 86_400_000 / grid.length)
    rows, day, today = 0.0, since + DAY if since < date.max else since, case.moment.date()
    while day < today and rows < enough:
        try:
            rows += a_day * is_session(case.calendars, case.exchange, day)
        except CalendarUnknown:
            if case.exchange not in case.calendars:
                break
        day += DAY
    return int(rows)


# --- a rollback ------------------------------------------------------------------------------------------------------


def _nothing_before(case: Case) -> Held | None:
    model = case.model
    if model is None or model.previous is None:
        return Held(reasons.ROLL_BACK_IMPOSSIBLE, "there is no approved version before this one")
    return None


def _pinned(case: Case) -> Held | None:
    if case.model is not None and case.model.mode == "Pinned":
        return Held(reasons.OVERRIDDEN_BY_PIN, "promotion.mode is Pinned: the pinned version serves; change the pin")
    return None


def _returned(case: Case) -> Held | None:
    if case.model is None or case.model.champion is None or not case.model.returned:
        return None
    return Held(reasons.ROLL_BACK_IMPOSSIBLE, gone_back_to(case.model.champion.version))


def _too_late(case: Case) -> Held | None:
    within = timedelta_of(case.spec.actions.roll_back.only_within)
    since = None if case.model is None or case.model.champion is None else case.model.champion.since
    if since is not None and case.moment < since + within:
        return None
    when = "it is not known when" if since is None else f"it was promoted at {since:%Y-%m-%d %H:%M} UTC and"
    return Held(
        reasons.TOO_LATE_TO_ROLL_BACK,
        f"{when} actions.rollBack.onlyWithin is {case.spec.actions.roll_back.only_within}: the version before has "
        "drifted as well",
    )


def _retrains_used_up(case: Case) -> Held | None:
    return used_up(case.spec, _acted(case), "Retrain", case.moment)


def _rollbacks_used_up(case: Case) -> Held | None:
    return used_up(case.spec, _acted(case), "RollBack", case.moment)


RULES = {
    "RollBack": (
        *(_killed, _suspended, _deleted, _dry_run, _unseen, _pinned, _nothing_before, _returned),
        *(_too_late, _rollbacks_used_up),
    ),
    "Retrain": (
        *(_killed, _suspended, _deleted, _dry_run, _unseen, _fixed, _frozen, _busy),
        *(_cooling, _retrains_used_up, _few_rows),
    ),
}
