"""Whether the route is in force: every parent took it over, and probes reach the version that the log names.

A condition of the API server is believed only as far as it goes: a route can be accepted everywhere while another one
takes its host and path, so what counts is what a client sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving.backends import service_of
from fiduciary.decide.step import Note
from fiduciary.manifests import versionnames
from fiduciary.serving.observed import ProbeTarget

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.serving import ParentRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.serving.observed import GatewayView, ProbeView, RouteView

SILENCE = timedelta(seconds=30)
"""How long a controller may take to look at a route before it counts as absent."""
WRITTEN = timedelta(seconds=3)
"""From our own write to a look at it."""
SETTLING = timedelta(seconds=15)
"""How long a gateway may answer as before after it accepted a route: proxies learn of it later than we do."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """``note``: why the route is not in force; None if it is. ``accepted``: every parent took this generation over.
    ``hijacked``: who answers instead. ``look``: when time alone could change the answer."""

    note: Note | None = None
    accepted: bool = False
    hijacked: str | None = None
    look: datetime | None = None


def route_state(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    """The route as the cluster and the probes show it.

    A controller that has yet to look at a change which moves no traffic (a version more in the list) takes nothing
    away from what probes see.
    """
    view = case.world.route
    if view is None or view.deleting:
        return written(case, "the route is written next")
    if view.decision < routing.decision or not _weighs(case, view, routing):
        return written(case, f"the route is brought to record {routing.decision}")
    late: RouteState | None = None
    for parent in able.gateway.parent_refs:
        lacking = parent_state(case, view, parent, routing)
        if lacking is None:
            continue
        if lacking.look is None:
            return lacking
        late = late or lacking
    found = _blocked(case, able, routing) if routing.blocked else _answered(case, history, able, routing)
    if late is None:
        return found
    return late if found.note is not None else RouteState(look=late.look)


def written(case: Case, message: str) -> RouteState:
    """What leads requests is being written. Somebody else may have nothing to say of it, and an own write is no news to
    us, so it is looked at in a moment."""
    return RouteState(Note(reasons.ROUTE_PENDING, message), look=case.now + WRITTEN)


def through_route(case: Case, able: Able, routing: Routing) -> tuple[ProbeTarget, ...]:
    """What clients do: every protocol, at every Gateway that has an address."""
    model, platform = case.world.model, case.world.platform
    targets: list[ProbeTarget] = []
    for parent in able.gateway.parent_refs:
        gateway = gateway_of(case, parent)
        if gateway is None or gateway.url is None:
            continue
        targets += [
            ProbeTarget(
                via="Route",
                protocol=protocol,
                url=gateway.url + (versionnames.model_path(model) if protocol == "rest" else ""),
                model=versionnames.served_name(model),
                host=host_of(able),
                decision=routing.decision,
                seconds=platform.probe_seconds,
            )
            for protocol in platform.probe_protocols
        ]
    return tuple(dict.fromkeys(targets))  # two listeners of one Gateway are one address


def gateway_of(case: Case, parent: ParentRef) -> GatewayView | None:
    namespace = parent.namespace or case.world.model.metadata.namespace
    named = ((gateway.namespace, gateway.name, gateway) for gateway in case.world.gateways)
    return next((found for place, name, found in named if (place, name) == (namespace, parent.name)), None)


def host_of(able: Able) -> str | None:
    """Host name that clients send; None: that of the address."""
    return able.gateway.hostnames[0] if able.gateway.hostnames else None


def parent_state(case: Case, view: RouteView, parent: ParentRef, routing: Routing) -> RouteState | None:
    """Why one parent has not taken the route over; None if it has. ``look`` is set where it only needs time."""
    namespace = parent.namespace or case.world.model.metadata.namespace
    name = f"Gateway {namespace}/{parent.name}"
    gateway = gateway_of(case, parent)
    if gateway is None:
        message = f"{name}, which spec.serving.gateway.parentRefs names, does not exist; create it or correct the name"
        return RouteState(Note(reasons.GATEWAY_MISSING, message, stalled=True))
    told = [
        status
        for status in view.parents
        if (status.namespace, status.name, status.section) == (namespace, parent.name, parent.section_name)
    ]
    if not told or any(status.observed_generation < view.generation for status in told):
        # A hand edit that is being set back is news to the controller as well.
        changes = (routing.at, view.written_at, view.seen_at, case.now if view.edited else None)
        patient_until = max(change for change in changes if change is not None) + SILENCE
        if case.now < patient_until:
            message = f"{name} takes the route over (record {routing.decision})"
            return RouteState(Note(reasons.ROUTE_PENDING, message), look=patient_until)
        message = (
            f"no controller has looked at generation {view.generation} of HTTPRoute {view.name} for {name}; is its "
            "controller installed and running?"
        )
        return RouteState(Note(reasons.GATEWAY_CONTROLLER_SILENT, message, stalled=True))
    for status in told:
        if not status.accepted:
            message = f"{name} does not accept the route: {status.reason}: {status.message}"
            return RouteState(Note(reasons.ROUTE_NOT_ACCEPTED, message, stalled=True))
        if not status.resolved:
            message = f"{name} does not find what the route points to: {status.reason}: {status.message}"
            return RouteState(Note(reasons.ROUTE_NOT_RESOLVED, message))
    if not gateway.programmed:
        message = f"{name} is not in operation: {gateway.message or 'its controller says nothing'}"
        return RouteState(Note(reasons.GATEWAY_NOT_PROGRAMMED, message))
    if gateway.url is None:
        message = f"{name} has no address yet; if it never gets one, name its URL in the operator's settings (gateways)"
        return RouteState(Note(reasons.GATEWAY_WITHOUT_ADDRESS, message), accepted=True)
    return None


def _weighs(case: Case, view: RouteView, routing: Routing) -> bool:
    """Whether the stored route gives requests to whom the log names, and to nobody else."""
    shares = {service: weight for service, weight in view.backends if weight > 0}
    wanted = {service_of(case, arm.version): arm.weight for arm in routing.arms if arm.weight > 0}
    return shares == wanted


def _answered(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    for target in through_route(case, able, routing):
        lacking = _probed(case, history, target, routing)
        if lacking is not None:
            return lacking
    return RouteState(accepted=True)


def _probed(case: Case, history: History, target: ProbeTarget, routing: Routing) -> RouteState | None:
    """Why a client would not get what the log names; None if it would."""
    probe = _result(case, target)
    if probe is None:
        message = f"the first {target.protocol} probe of {target.url} for record {routing.decision} is on its way"
        return RouteState(Note(reasons.PROBE_PENDING, message), accepted=True)
    if probe.ok and probe.digest in routing.answering:
        return None
    told = probe.message or (f"status {probe.status}" if probe.status is not None else "no answer")
    ours = probe.digest in _ours(history) - routing.answering
    foreign = probe.ok or (probe.status is not None and probe.status < 500 and not probe.digest)
    if ours:
        names = ", ".join(str(arm.version.version) for arm in routing.arms if arm.weight > 0)
        told = f"version {probe.version} answers, record {routing.decision} names version {names}"
    where = f"{target.url}{_host(target)}"
    settled = max(probe.since or probe.at, routing.at) + SETTLING
    if (ours or foreign) and case.now < settled:
        reason = reasons.WRONG_VERSION_ANSWERS if ours else reasons.ROUTE_PENDING
        message = f"{where} does not answer as record {routing.decision} says yet: {told}"
        return RouteState(Note(reason, message), accepted=True, look=settled)
    if ours or foreign:
        message = (
            f"every gateway took the route over, and {where} is answered otherwise ({told}). Another route has taken "
            "this host and path: find it with kubectl get httproutes -A"
        )
        return RouteState(Note(reasons.ROUTE_HIJACKED, message, stalled=True), accepted=True, hijacked=message)
    return RouteState(Note(reasons.PROBE_FAILED, f"{where} gives no prediction: {told}"), accepted=True)


def _blocked(case: Case, able: Able, routing: Routing) -> RouteState:
    """With the switch engaged the route is in force when nobody answers any more."""
    for target in through_route(case, able, routing):
        probe = _result(case, target)
        if probe is None:
            return RouteState(Note(reasons.PROBE_PENDING, f"whether {target.url} is silent is not seen yet"), True)
        if probe.digest:
            message = f"version {probe.version} still answers at {target.url}"
            return RouteState(Note(reasons.WRONG_VERSION_ANSWERS, message), True)
    return RouteState(accepted=True)


def _ours(history: History) -> set[str]:
    return {
        verdict.version.digest
        for verdict in history.verdicts.values()
        if verdict.version is not None and verdict.version.digest is not None
    }


def _host(target: ProbeTarget) -> str:
    return f" (Host: {target.host})" if target.host else ""


def _result(case: Case, target: ProbeTarget) -> ProbeView | None:
    return next((probe for probe in case.world.probes if probe.target == target), None)
