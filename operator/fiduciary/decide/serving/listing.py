"""Versions that the route names without giving them requests, and when one of them may get some.

A gateway that hears of a backend and of its share in one moment sends requests before it knows the pods. So a version
is listed with share 0 as soon as one of its pods is ready; that takes no record, as it moves nothing. Shares move to it
only once every parent has taken that route over and a little more has passed. It is the same on the way out: a gateway
that forgets a backend before it has the new shares answers 503 in between, so a version that lost its share stays
listed with 0 until its requests have drained.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving.backends import in_force, service_of
from fiduciary.decide.serving.inforce import parent_state
from fiduciary.decide.serving.wanted import ready_of
from fiduciary.decide.step import Note
from fiduciary.manifests import seldon
from fiduciary.manifests.plans import Arm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.routing import Routing

MOST_ARMS = 16
"""The Gateway API takes no more backends in a rule."""
WARMING = timedelta(seconds=3)
"""From a route that its controllers confirmed to proxies that know every pod; no status tells of it."""
UNSEEN = timedelta(seconds=5)
"""The same from the write, where it is not known when it was confirmed: the API server keeps whole seconds."""


def listed(case: Case, routing: Routing, versions: Iterable[VersionRef]) -> tuple[Arm, ...]:
    """The shares of the log, and every other version that could get one. A mesh knows every version that is loaded."""
    if in_force(case) == "Seldon":
        return routing.arms
    arms = list(routing.arms)
    for version in versions:
        known = any(arm.version.digest == version.digest for arm in arms)
        if not known and (ready_of(case, version) > 0 or is_listed(case, version)):
            arms.append(Arm(version, 0))
    return tuple(arms[:MOST_ARMS])


def leaving(case: Case, *, needed: Collection[str]) -> tuple[tuple[str, int | None], ...]:
    """(Service, port) that the stored route names, whose pods are still there, and that nothing is going to need: what
    was rejected, rolled back or served by another backend. Without a port: that of each rule."""
    view, found = case.world.route, list[tuple[str, int | None]]()
    pods = {(one.kind, one.name) for one in case.world.deployments if not one.deleting}
    for service, _ in view.backends if view is not None else ():
        if service in needed:
            continue
        if service == seldon.MESH:
            found.append((service, seldon.MESH_PORT))
        elif ("Deployment", service) in pods or ("InferenceService", service.removesuffix("-ks")) in pods:
            found.append((service, None))
    return tuple(found)


def is_listed(case: Case, version: VersionRef) -> bool:
    """Whether the stored route names the version."""
    view = case.world.route
    name = service_of(case, version)
    return view is not None and any(service == name for service, _ in view.backends)


def cold(case: Case, able: Able, routing: Routing, version: VersionRef) -> tuple[Note, datetime | None] | None:
    """Why requests must not be sent to the version yet; None if its proxies know it.

    A parent that can take no route over (no such Gateway, no controller) has no clients to lose and holds nobody up.
    """
    if in_force(case) == "Seldon":
        return None
    view = case.world.route
    message = f"version {version.version} is made known to the gateways before it gets requests"
    note = Note(reasons.ROUTE_PENDING, message)
    if view is None or not is_listed(case, version):
        return note, None
    for parent in able.gateway.parent_refs:
        state = parent_state(case, view, parent, routing)
        if state is not None and state.look is not None:
            return note, state.look
    seen = view.confirmed_at
    warm = seen + WARMING if seen is not None else (view.written_at or routing.at) + UNSEEN
    return (note, warm) if case.now < warm else None
