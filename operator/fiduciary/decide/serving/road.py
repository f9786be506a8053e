"""The way that clients take, by whatever leads them: an HTTPRoute alone, or a mesh behind it.

Upkeep asks here what is in force, what has to be probed and what has to be written; what a mesh needs is in ``seldon``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import Endpoint
from fiduciary.decide import reasons
from fiduciary.decide.decision import Child, Delete, Event
from fiduciary.decide.serving import inforce, objects
from fiduciary.decide.serving.backends import in_force, service_of
from fiduciary.decide.serving.following import window_end
from fiduciary.decide.serving.inforce import gateway_of, host_of
from fiduciary.decide.serving.listing import MOST_ARMS, leaving, listed
from fiduciary.decide.serving.seldon import course, proof
from fiduciary.manifests import seldon, versionnames
from fiduciary.manifests.content import content_of
from fiduciary.manifests.plans import RoutePlan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.inforce import RouteState
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.manifests.plans import Arm
    from fiduciary.serving.observed import ProbeTarget, RouteView
    from fiduciary.serving.seldonviews import ExperimentView

DRAIN = timedelta(seconds=60)
"""From a change of the route to the end of what it left: requests under way, and proxies that learn late."""

Writes = tuple[tuple[Child, ...], tuple[Event, ...]]


def meshed(case: Case) -> bool:
    """Whether a mesh stands between the route and the versions."""
    return in_force(case) == "Seldon"


def route_state(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    """Whether clients get what the log names."""
    judge = proof.state if meshed(case) else inforce.route_state
    return judge(case, history, able, routing)


def through_route(case: Case, history: History, able: Able, routing: Routing) -> tuple[ProbeTarget, ...]:
    """What clients do."""
    if meshed(case):
        return proof.targets(case, history, able, routing)
    return inforce.through_route(case, able, routing)


def endpoint(case: Case, history: History, able: Able, routing: Routing | None, state: RouteState) -> Endpoint | None:
    """Where clients ask, and what they have to send: the first Gateway that has an address; else the mesh."""
    if routing is None:
        return None
    for parent in able.gateway.parent_refs:
        gateway = gateway_of(case, parent)
        if gateway is not None and gateway.url is not None:
            host = host_of(able)
            headers = {"Host": host} if host is not None else {}
            return Endpoint(url=gateway.url + versionnames.model_path(case.world.model), headers=headers)
    if not meshed(case) or able.gateway.parent_refs:
        return None
    lead = _next_lead(course.course(case, history, routing), state, routing)
    url = f"http://{seldon.MESH}.{case.world.model.metadata.namespace}.svc/v2/models/{lead}"
    return Endpoint(url=url, headers={seldon.MODEL_HEADER: lead})


def writes(
    case: Case,
    history: History,
    able: Able,
    routing: Routing,
    versions: list[VersionRef],
    state: RouteState,
    also: tuple[tuple[str, int | None], ...] = (),
    *,
    settled: bool = False,
) -> Writes:
    """What has to be written for requests to go where the log sends them. The number on the route never falls.

    Args:
        also: (Service, port) that gateways should know without sending anything there; None: the port of each rule.
        settled: what the route left has drained, and may be forgotten.
    """
    view = case.world.route
    number = max([routing.decision, *_numbers(case)])
    children: list[Child] = []
    events: list[Event] = []
    lead: str | None = None
    if meshed(case):
        way = course.course(case, history, routing)
        lead = _next_lead(way, state, routing)
        for body in course.bodies(case, way, routing, number):
            name = body["metadata"]["name"]
            standing = next((one for one in case.world.seldon.experiments if one.name == name), None)
            if standing is not None and standing.deleting:
                continue  # it comes again under its name when it is gone
            if standing is None or objects.differs(standing, content_of(body)[0], case):
                children.append(objects.applied(body, standing))
                events += _told(standing, body, number)
        if _useless(case, able, way, routing, state):
            children += [experiment_deletion(one) for one in course.over(case, way)]
        if not able.gateway.parent_refs:
            gone = [objects.route_deletion(view)] if view is not None and not view.deleting else []
            return (*children, *gone), tuple(events)
    arms = listed(case, routing, versions)
    if not settled:
        also = (*also, *leaving(case, needed=_named(case, arms, also)))
    also = also[: MOST_ARMS - len(arms)]
    plan = RoutePlan(case.world.model, number, arms, routing.mirrored, lead=lead, also=also)
    body = able.backend.route(plan)
    if view is None:
        if case.status.endpoint is not None:
            message = f"HTTPRoute {case.name} vanished and is made again"
            events.append(Event("Warning", reasons.SERVING_OBJECT_RESTORED, message))
        return (*children, objects.applied(body, None)), tuple(events)
    if not view.deleting and objects.differs(view, content_of(body)[0], case):
        children.append(objects.applied(body, view))
        events += _told(view, body, number)
    return tuple(children), tuple(events)


def _named(case: Case, arms: Sequence[Arm], also: tuple[tuple[str, int | None], ...]) -> set[str]:
    return {*(service_of(case, arm.version) for arm in arms), *(service for service, _ in also)}


def left_behind(case: Case, able: Able, history: History, routing: Routing) -> tuple[Child, ...]:
    """The same, of nobody (deletionPolicy Retain): nothing where it is so already."""
    number, children = max([routing.decision, *_numbers(case)]), list[Child]()
    lead: str | None = None
    if meshed(case):
        way = course.course(case, history, routing)
        lead = way.lead
        for body in course.bodies(case, way, routing, number, owned=False):
            name = body["metadata"]["name"]
            standing = next((one for one in case.world.seldon.experiments if one.name == name), None)
            if standing is not None and objects.differs(standing, content_of(body)[0], case, owned=False):
                children.append(objects.applied(body, standing))
    view = case.world.route
    if view is not None:
        known = [one for one in (history.champion, *history.former, history.challenger) if one is not None]
        arms = listed(case, routing, known)
        body = able.backend.route(RoutePlan(case.world.model, number, arms, routing.mirrored, owned=False, lead=lead))
        if objects.differs(view, content_of(body)[0], case, owned=False):
            children.append(objects.applied(body, view))
    return tuple(children)


def gone(case: Case) -> tuple[Child, ...]:
    """Everything that leads requests anywhere."""
    view = case.world.route
    route = (objects.route_deletion(view),) if view is not None and not view.deleting else ()
    return (*route, *(experiment_deletion(one) for one in case.world.seldon.experiments if not one.deleting))


def leads_anywhere(case: Case) -> bool:
    return case.world.route is not None or bool(case.world.seldon.experiments)


def silenced(case: Case, history: History) -> tuple[Child, ...]:
    """A kill works also where no route can be made any more: one that answers with what it does not name goes."""
    view, kill, stands_in = case.world.route, history.kill, history.kill_serves
    if view is None or view.deleting or kill is None or not kill.engaged:
        return ()
    allowed = service_of(case, stands_in) if stands_in is not None else ""
    own = versionnames.version_name(case.name, stands_in.digest or "") if stands_in is not None else ""
    named = view.lead == own
    if all(weight == 0 or (service == allowed and (named or not view.lead)) for service, weight in view.backends):
        return ()
    return (objects.route_deletion(view),)


def experiment_deletion(view: ExperimentView) -> Delete:
    return Delete(seldon.API_VERSION, "Experiment", view.name, view.uid)


def _next_lead(way: course.Course, state: RouteState, routing: Routing) -> str:
    """The champion's name, once probes have seen that nobody else answers; the present one until then."""
    if routing.blocked or state.note is not None or not state.accepted:
        return way.lead
    return way.successor


def _useless(case: Case, able: Able, way: course.Course, routing: Routing, state: RouteState) -> bool:
    """Whether Experiments that split nothing may go: nobody may be on the way to one of them.

    Clients that have no Gateway send the name that they read last: they get the present champion by an Experiment on
    the old name for as long as that champion's way back is kept ready.
    """
    if state.note is not None or not state.accepted or routing.blocked:
        return False
    if case.now < _last_change(case, routing) + DRAIN:
        return False
    if able.gateway.parent_refs:
        return True
    others = [one.default for one in course.over(case, way) if one.default != way.lead]
    return not any(_kept(case, name) for name in others)


def _kept(case: Case, name: str) -> bool:
    return case.now < window_end(case, case.history) and any(view.name == name for view in case.world.deployments)


def drained(case: Case, history: History, routing: Routing) -> datetime | None:
    """When the end of what is left over can be looked at again; None where nothing is left over."""
    if not meshed(case) or not course.over(case, course.course(case, history, routing)):
        return None
    end = _last_change(case, routing) + DRAIN
    return end if end > case.now else None


def _last_change(case: Case, routing: Routing) -> datetime:
    """When requests were last led elsewhere."""
    view = case.world.route
    known = (view.confirmed_at, view.written_at) if view is not None else ()
    return max([routing.at, *(moment for moment in known if moment is not None)])


def _numbers(case: Case) -> list[int]:
    route = case.world.route
    own = [route.decision] if route is not None else []
    return [*own, *(view.decision for view in case.world.seldon.experiments)]


def _told(view: RouteView | ExperimentView | None, body: dict[str, object], number: int) -> list[Event]:
    """A word to the person who changed what is ours."""
    if view is None or not view.edited or view.content != content_of(body)[0]:
        return []
    message = f"{body['kind']} {view.name} was changed by hand and is set back to record {number}"
    return [Event("Warning", reasons.ROUTE_RESTORED, message)]
