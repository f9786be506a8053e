"""What serving needs at every moment, whatever else goes on: the route as the log says, versions loaded, probes.

It writes no records and decides nothing. So it goes on while a training runs, while MLflow is away, while the model is
suspended, and on a log that does not hold together, where it takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving import objects, readiness, road, succession
from fiduciary.decide.serving.ability import Able, ability, route_obstacle
from fiduciary.decide.serving.again import as_before, moving
from fiduciary.decide.serving.arrival import arrival, direct, imitating
from fiduciary.decide.serving.backends import workload
from fiduciary.decide.serving.following import active, harmful, window_end
from fiduciary.decide.serving.inforce import RouteState
from fiduciary.decide.serving.lost import lost_records
from fiduciary.decide.serving.queueing import cleared, made
from fiduciary.decide.serving.routing import routing, without_challenger
from fiduciary.decide.serving.scoring import scorer
from fiduciary.decide.serving.shadow import compared, compared_until, shadowed
from fiduciary.decide.serving.split import split
from fiduciary.decide.serving.verdicts import rising
from fiduciary.decide.serving.waits import promotion_pending
from fiduciary.decide.serving.wanted import ready_of, view_of, wanted
from fiduciary.decide.serving.waysback import passes
from fiduciary.decide.serving.will import act_refused, closed, pin_refused, will
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modelstatus import Endpoint, TrafficStatus
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child, Delete, Event
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.decide.serving.wanted import Wanted
    from fiduciary.decide.serving.will import Will
    from fiduciary.serving.observed import ProbeTarget


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What has to be written for serving, and what the status says of it.

    Attributes:
        route: writes to the route; before everything else.
        children: writes to everything else.
        lacking: why clients are not answered as the log says; None where they are (``served``).
        notes: what is on its way or needs a person, ``lacking`` included.
        pending: why a challenger, or the version that people want, is not champion yet.
        refused: a person's act that cannot be carried out.
        hijacked: who answers instead of this model.
        traffic: the split of requests, and since when it is in force.
    """

    route: tuple[Child, ...] = ()
    children: tuple[Child, ...] = ()
    probes: tuple[ProbeTarget, ...] = ()
    events: tuple[Event, ...] = ()
    served: bool = False
    lacking: Note | None = None
    notes: tuple[Note, ...] = ()
    pending: Note | None = None
    refused: Note | None = None
    hijacked: str | None = None
    traffic: TrafficStatus | None = None
    endpoint: Endpoint | None = None
    runtime: str | None = None
    wake_at: datetime | None = None


def upkeep(case: Case, history: History) -> Upkeep:
    """What serving needs once ``history`` is the log."""
    case = succession.after(case, history)
    able = ability(case)
    if isinstance(able, Able):
        return _active(case, history, able)
    silenced = road.silenced(case, history)
    if isinstance(able, Note):
        champion = history.champion is not None
        return Upkeep(route=silenced, lacking=able if champion else None, notes=(able,) if champion else ())
    return _ending(case, history, silenced)


def _active(case: Case, history: History, able: Able) -> Upkeep:
    harm = harmful(case, history)
    route = without_challenger(routing(history)) if harm else routing(history)
    previous = compared(case, history)
    route = shadowed(case, history, route, previous if ready_of(case, previous) > 0 else None)
    lost = lost_records(case, history)
    hindered = lost or route_obstacle(case, able)
    wish = None if history.broken else will(case, history)
    versions = wanted(case, history, able, route, wish)
    state = _state(case, history, able, route, hindered)
    heir = succession.heir(case, history, route, ready=history.broken is None and lost is None)
    settled, settles_at = _settled(case, route, state)
    writes, told = _route(
        case, history, able, route, versions, state, heir.listed, blocked_by=hindered, harm=harm, settled=settled
    )
    kept = objects.keep(case, able, versions, answering=route.answering if route else frozenset())
    whole = history.broken is None and lost is None
    needs = ((workload(case), able, versions), *heir.needs)
    gone = objects.surplus(case, needs) if settled and whole else ()
    sized = _unloaded(case, able, route, versions)
    shrunk = objects.scaled(case, able, sized, down=sized is not versions or (settled and history.broken is None))
    queued, queued_told = made(case, history) if whole else ((), ())
    over = cleared(case, history) if whole else ()
    coming = arrival(case, history, able, wish.version, compatible=wish.compatible) if wish is not None else None
    answered = route is not None and not route.blocked and state.note is None
    lacking = None if answered else _lacking(case, history, able, route, state)
    hijacked = state.hijacked
    before, brought = as_before(case, history, state), None
    if before is None and (before := moving(case, history, route, state)) is not None:
        brought = state.note
    if before is not None:
        lacking, hijacked = before.lacking, before.hijacked
    pending = promotion_pending(case, history, wish, coming)
    on_its_way = pending if wish is not None else None
    rolling = None if lacking is not None else _rolling(case, route)
    told_of = (pin_refused(case, history), lacking, on_its_way, brought, rolling, kept.waiting, heir.note)
    notes = [note for note in told_of if note is not None]
    expected = coming if coming is not None else rising(case, history, able)
    moments = [settles_at, state.look, kept.look, expected.look if expected is not None else None]
    moments += [readiness.next_look(case, view) for view in case.world.deployments]
    moments += [heir.look, road.drained(case, history, route) if route is not None else None]
    held = closed(case, history, active(case, history))
    moments += [
        held.until if held is not None else None,
        _window(case, history),
        _later(case, compared_until(case, history)),
        before.until if before is not None else None,
    ]
    return Upkeep(
        route=writes,
        children=(*kept.children, *scorer(case, able, versions), *heir.children, *shrunk, *gone, *queued, *over),
        probes=(*_probes(case, history, able, route, wish), *heir.probes),
        events=(*told, *kept.events, *queued_told),
        served=lacking is None and history.champion is not None,
        lacking=lacking,
        notes=tuple(notes),
        pending=pending,
        refused=act_refused(case, history),
        hijacked=hijacked,
        traffic=split(case, history, route, state),
        endpoint=road.endpoint(case, history, able, route, state),
        runtime=_runtime(case, history),
        wake_at=_earliest(moments),
    )


# --- the route -------------------------------------------------------------------------------------------------------


def _route(
    case: Case,
    history: History,
    able: Able,
    route: Routing | None,
    versions: tuple[Wanted, ...],
    state: RouteState,
    also: tuple[tuple[str, int | None], ...],
    *,
    blocked_by: Note | None,
    harm: bool,
    settled: bool,
) -> tuple[tuple[Child, ...], tuple[Event, ...]]:
    """(writes to the route, events). A kill is written all the same, under the number that is there, and so is harm
    that no record can be written of: they only take away."""
    killed = history.kill is not None and history.kill.engaged
    if blocked_by is not None and not ((killed or harm) and blocked_by.reason == reasons.LOG_BROKEN):
        return road.silenced(case, history), ()
    if route is None:
        return road.gone(case), ()
    known = [wanted.version for wanted in versions]
    return road.writes(case, history, able, route, known, state, also, settled=settled)


def _state(case: Case, history: History, able: Able, route: Routing | None, blocked_by: Note | None) -> RouteState:
    if blocked_by is not None:
        return RouteState(blocked_by)
    if route is None:
        return RouteState()
    return road.route_state(case, history, able, route)


def _settled(case: Case, route: Routing | None, state: RouteState) -> tuple[bool, datetime | None]:
    """Whether what the route left may go, and when time alone will allow it.

    In force: accepted by every parent and seen by probes. Then the drain: its requests have ended.
    """
    if route is None:
        return not road.leads_anywhere(case), None
    if state.note is not None or not state.accepted:
        return False, None
    end = route.at + road.DRAIN
    return case.now >= end, end if case.now < end else None


# --- what is missing -------------------------------------------------------------------------------------------------


def _lacking(case: Case, history: History, able: Able, route: Routing | None, state: RouteState) -> Note | None:
    """Why clients get no answer of the right version."""
    champion = history.champion
    if champion is None:
        return None
    if route is None:
        if case.killed:
            return Note(reasons.KILL_ENGAGED, "the kill switch is latched: nothing gets traffic")
        if case.spec.suspend:
            message = f"version {champion.version} gets no traffic while spec.suspend is true"
            return Note(reasons.SUSPENDED_BY_SPEC, message)
        if not passes(history, champion):
            message = f"version {champion.version} does not pass the gates as they are now: it gets no requests"
            return Note(reasons.CHAMPION_FAILS_GATES, message, stalled=True)
        note = arrival(case, history, able, champion, compatible=False, need=1).note
        return note or state.note or Note(reasons.ROUTE_PENDING, f"version {champion.version} is about to get traffic")
    if route.blocked:
        seen = state.note.message if state.note is not None else "as a probe saw"
        return Note(reasons.KILL_ENGAGED, f"the kill switch is engaged: clients get status 500 ({seen})")
    if state.note is not None and state.note.stalled:
        return state.note
    for arm in route.arms:
        view = view_of(case, arm.version)
        if arm.weight > 0 and view is not None and view.able == 0:
            return readiness.not_ready(case, view, 1)
    return state.note


def _rolling(case: Case, route: Routing | None) -> Note | None:
    """A version that answers and whose newest pods are not there: clients do not notice, a person should."""
    for arm in route.arms if route is not None else ():
        view = view_of(case, arm.version)
        if arm.weight > 0 and view is not None and (note := readiness.rolling_out(case, view)) is not None:
            return note
    return None


def _unloaded(case: Case, able: Able, route: Routing | None, versions: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
    """Without a Gateway nothing stands before a mesh: who may not answer has to be unloaded."""
    if route is None or not route.blocked or able.gateway.parent_refs or not road.meshed(case):
        return versions
    return tuple(replace(wanted, replicas=0) for wanted in versions)


def _earliest(moments: list[datetime | None]) -> datetime | None:
    """Rounded up to whole seconds, at which decisions are made: woken a moment early, they would wake again at once."""
    first = min((moment for moment in moments if moment is not None), default=None)
    if first is None or first.microsecond == 0:
        return first
    return first.replace(microsecond=0) + timedelta(seconds=1)


def _window(case: Case, history: History) -> datetime | None:
    return _later(case, window_end(case, history) if history.former else None)


def _later(case: Case, moment: datetime | None) -> datetime | None:
    return moment if moment is not None and moment > case.now else None


# --- what is asked and told ------------------------------------------------------------------------------------------


def _probes(
    case: Case, history: History, able: Able, route: Routing | None, wish: Will | None
) -> tuple[ProbeTarget, ...]:
    """What clients see, and what could answer them next."""
    asked: list[ProbeTarget] = list(road.through_route(case, history, able, route)) if route is not None else []
    champion, challenger = history.champion, history.challenger

    def ask(version: VersionRef, *, compatible: bool) -> None:
        view = view_of(case, version)
        if view is None or view.able == 0:
            return
        asked.append(direct(case, able, version))
        if compatible and champion is not None:
            asked.append(imitating(case, able, version, champion))

    if champion is not None and route is None:
        ask(champion, compatible=False)
    if wish is not None:
        ask(wish.version, compatible=wish.compatible)
    if challenger is not None:
        ask(challenger, compatible=True)
    return tuple(dict.fromkeys(asked))


def _runtime(case: Case, history: History) -> str | None:
    """Image digest of the runtime that the champion's pods run."""
    view = view_of(case, history.champion)
    for pod in view.pods if view is not None else ():
        _, found, digest = pod.image_id.rpartition("@")
        if found and pod.ready:
            return digest
    return case.status.serving_runtime_digest


# --- the end of serving ----------------------------------------------------------------------------------------------


def _ending(case: Case, history: History, silenced: tuple[Child, ...]) -> Upkeep:
    """Serving is not asked for: the route goes first, then, when its requests have ended, what served."""
    world = case.world
    champion = history.champion
    note = None
    if champion is not None:
        message = (
            f"version {champion.version} is registered as champion of {case.registered_model}; spec.serving is absent, "
            "take the version from MLflow by its alias"
        )
        note = Note(reasons.SERVING_NOT_REQUESTED, message)
    pending = promotion_pending(case, history, None if history.broken else will(case, history), None)
    refused = act_refused(case, history)
    if routing(history) is not None or history.broken is not None or lost_records(case, history) is not None:
        return Upkeep(route=silenced, lacking=note, pending=pending, refused=refused)
    if road.leads_anywhere(case):
        return Upkeep(route=road.gone(case), lacking=note, pending=pending, refused=refused)
    end = history.routed_at + road.DRAIN if history.routed_at is not None else case.now
    if case.now < end and (world.deployments or world.children):
        return Upkeep(lacking=note, pending=pending, refused=refused, wake_at=end)
    gone: tuple[Delete, ...] = objects.everything(case)
    return Upkeep(children=gone, lacking=note, pending=pending, refused=refused)
