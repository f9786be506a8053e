"""Whether the mesh does what the log says. No status of Seldon's proves that; answers of the mesh do.

Three things together: the Experiment was taken over since it was written, the HTTPRoute leads to the mesh with the
lead's name, and probes say the rest. Through the clients' way every answer comes from a version that may answer, in
about the shares that the log names; past the weights (``x-seldon-route``) each version of the split is reached, which
only works while the mesh knows it as a candidate.
"""

from __future__ import annotations

from datetime import timedelta
from math import comb
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving import inforce
from fiduciary.decide.serving.inforce import SETTLING, RouteState, gateway_of, host_of
from fiduciary.decide.serving.seldon import models
from fiduciary.decide.serving.seldon.course import course, split_of
from fiduciary.decide.serving.seldon.splits import not_in_force
from fiduciary.decide.step import Note
from fiduciary.manifests import seldon, versionnames
from fiduciary.serving.observed import ProbeTarget
from fiduciary.serving.seldonviews import ModelView

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.decide.serving.seldon.course import Course
    from fiduciary.serving.observed import ProbeView

DRAWS, FEW = 20, 4
"""Requests of one look at a split, and at a route that one version answers alone."""
UNLIKELY = 1e-6
"""Shares that are so improbable under the log's weights are not those weights. Looks come for as long as a split lasts,
so it has to be small; an edit that was ignored (50 instead of 5) shows within two looks all the same."""
MISSING = timedelta(seconds=5)


def state(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    """The mesh, as its objects and probes show it."""
    way = course(case, history, routing)
    late: RouteState | None = None
    if able.gateway.parent_refs:
        unled = _unled(case, routing, way)
        if unled is not None:
            return unled
        lacking = _lacking_parent(case, able, routing)
        if lacking is not None and lacking.look is None:
            return lacking
        late = lacking
    if routing.blocked:
        return _silent(case, history, able, routing)
    if way.split:
        view = split_of(case, way.lead)
        if view is None:
            return inforce.written(case, f"the Experiment of record {routing.decision} is written next")
        if view.decision < routing.decision or not _weighs(case, view.candidates, routing):
            return inforce.written(case, f"Experiment {view.name} is brought to record {routing.decision}")
        note, look = not_in_force(case, view)
        if note is not None:
            return RouteState(note, accepted=False, look=look)
    found = _answered(case, history, able, routing)
    return found if late is None or found.note is not None else late


def targets(case: Case, history: History, able: Able, routing: Routing) -> tuple[ProbeTarget, ...]:
    """What clients do, and each version of a split past its weight."""
    way = course(case, history, routing)
    return (*_clients(case, able, routing, way), *_pinned(case, able, routing, way))


def _clients(case: Case, able: Able, routing: Routing, way: Course) -> tuple[ProbeTarget, ...]:
    """At every Gateway that has an address; without a Gateway at the mesh, with the header that clients are told."""
    model, seconds = case.world.model, case.world.platform.probe_seconds
    draws = FEW if len(way.live) < 2 else DRAWS
    if not able.gateway.parent_refs:
        address = f"http://{seldon.MESH}.{model.metadata.namespace}.svc/v2/models/{way.lead}"
        return (
            ProbeTarget(
                "Route", "rest", address, versionnames.served_name(model), decision=routing.decision, seconds=seconds,
                served=way.lead, headers=((seldon.MODEL_HEADER, way.lead),), draws=draws,
            ),
        )  # fmt: skip
    found: list[ProbeTarget] = []
    for parent in able.gateway.parent_refs:
        gateway = gateway_of(case, parent)
        if gateway is not None and gateway.url is not None:
            url, name = gateway.url + versionnames.model_path(model), versionnames.served_name(model)
            found.append(
                ProbeTarget(
                    "Route",
                    "rest",
                    url,
                    name,
                    host=host_of(able),
                    decision=routing.decision,
                    seconds=seconds,
                    draws=draws,
                )
            )
    return tuple(dict.fromkeys(found))


def _pinned(case: Case, able: Able, routing: Routing, way: Course) -> tuple[ProbeTarget, ...]:
    """Whether the mesh knows each version of the split: the header chooses it whatever its weight."""
    if not way.split or routing.blocked or len(way.live) < 2:
        return ()
    model = case.world.model
    address = f"http://{seldon.MESH}.{model.metadata.namespace}.svc/v2/models/{way.lead}"
    return tuple(
        ProbeTarget(
            "Version", "rest", address, versionnames.served_name(model), digest=arm.version.digest or "",
            decision=routing.decision, seconds=case.world.platform.probe_seconds, served=way.lead,
            headers=(
                (seldon.MODEL_HEADER, way.lead), (seldon.PIN_HEADER, seldon.pin(seldon.model_name(model, arm.version))),
            ),
        )
        for arm in routing.arms
        if arm.weight > 0
    )  # fmt: skip


def _unled(case: Case, routing: Routing, way: Course) -> RouteState | None:
    """Why the stored route does not lead to the mesh with the lead's name."""
    view = case.world.route
    if view is None or view.deleting:
        return inforce.written(case, "the route is written next")
    weight = sum(weight for name, weight in view.backends if name == seldon.MESH)
    if view.decision < routing.decision or (weight == 0) != routing.blocked or view.lead != way.lead:
        return inforce.written(case, f"the route is brought to record {routing.decision}")
    return None


def _lacking_parent(case: Case, able: Able, routing: Routing) -> RouteState | None:
    """Why a parent has not taken the route over; ``look`` where that needs time only."""
    view, late = case.world.route, None
    assert view is not None
    for parent in able.gateway.parent_refs:
        lacking = inforce.parent_state(case, view, parent, routing)
        if lacking is not None and lacking.look is None:
            return lacking
        late = late or lacking
    return late


def _weighs(case: Case, candidates: tuple[tuple[str, int], ...], routing: Routing) -> bool:
    wanted = {seldon.model_name(case.world.model, arm.version): arm.weight for arm in routing.arms if arm.weight > 0}
    return {name: weight for name, weight in candidates if weight > 0} == wanted


def _silent(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    for target in _clients(case, able, routing, course(case, history, routing)):
        probe = _result(case, target)
        if probe is None:
            return RouteState(Note(reasons.PROBE_PENDING, f"whether {target.url} is silent is not seen yet"), True)
        if probe.digest:
            message = f"version {probe.version} still answers at {target.url}"
            return RouteState(Note(reasons.WRONG_VERSION_ANSWERS, message), True)
    return RouteState(accepted=True)


def _answered(case: Case, history: History, able: Able, routing: Routing) -> RouteState:
    way = course(case, history, routing)
    for target in _clients(case, able, routing, way):
        lacking = _drawn(case, target, routing)
        if lacking is not None:
            return lacking
    for target in _pinned(case, able, routing, way):
        probe = _result(case, target)
        if probe is None:
            message = f"whether the mesh knows {target.headers[-1][1]} is not seen yet"
            return RouteState(Note(reasons.PROBE_PENDING, message), accepted=True)
        if not probe.ok or probe.digest != target.digest:
            return _unrouted(case, target, probe, routing)
    return RouteState(accepted=True)


def _drawn(case: Case, target: ProbeTarget, routing: Routing) -> RouteState | None:
    """Why clients would not get what the log names; None if they would."""
    probe = _result(case, target)
    if probe is None:
        message = f"the first probe of {target.url} for record {routing.decision} is on its way"
        return RouteState(Note(reasons.PROBE_PENDING, message), accepted=True)
    if not probe.ok:
        return _unrouted(case, target, probe, routing)
    counts = dict(probe.drawn) or {probe.digest: 1}
    shares = {arm.version.digest or "": arm.weight for arm in routing.arms if arm.weight > 0}
    settled = max(probe.since or probe.at, routing.at) + SETTLING
    if probe.digest not in shares:
        told = f"version {probe.version} ({probe.route or probe.digest}) answers"
        return _otherwise(target, routing, told, settled if case.now < settled else None)
    # Of one version alone the newest look has said all: earlier ones may be from before the change.
    total, weights = sum(counts.values()), sum(shares.values())
    for digest, weight in shares.items() if len(shares) > 1 else ():
        if improbable(counts.get(digest, 0), total, weight / weights):
            told = f"of {total} answers {counts.get(digest, 0)} are of a version that should give {weight} %"
            return _otherwise(target, routing, told, settled if case.now < settled else None)
    return None


def improbable(count: int, total: int, share: float) -> bool:
    """Whether a binomial draw is so far out that these were not the shares (both tails, exact)."""
    below = sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count + 1))
    above = sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count, total + 1))
    return min(below, above) < UNLIKELY


def _otherwise(target: ProbeTarget, routing: Routing, told: str, look: datetime | None) -> RouteState:
    where = f"{target.url} does not answer as record {routing.decision} says"
    if look is not None:
        return RouteState(Note(reasons.WRONG_VERSION_ANSWERS, f"{where} yet: {told}"), accepted=True, look=look)
    message = (
        f"{where}: {told}. The mesh holds another split than the Experiment: look at seldon-scheduler and whether "
        "Envoy takes its routes (envoy_http_rds_update_rejected), or whether somebody else's Experiment or HTTPRoute "
        "took them"
    )
    return RouteState(Note(reasons.ROUTE_HIJACKED, message, stalled=True), accepted=True, hijacked=message)


def _unrouted(case: Case, target: ProbeTarget, probe: ProbeView, routing: Routing) -> RouteState:
    """A 404 of the mesh has no route behind it: a version that lost its place, or Ready everywhere and nobody there."""
    told = probe.message or (f"status {probe.status}" if probe.status is not None else "no answer")
    if probe.status == 404:
        lost = _lost(case, routing)
        if lost is not None:
            return RouteState(lost, accepted=True)
        settled = max(probe.since or probe.at, routing.at) + MISSING
        message = (
            f"{target.url} answers 404 although Seldon shows everything as ready: the mesh has no such route. Restart "
            "seldon-scheduler, which sends Envoy all routes anew; every Experiment whose weights are all 0 has to go"
        )
        stalled = case.now >= settled
        look = None if stalled else settled
        return RouteState(Note(reasons.ROUTE_MISSING, message, stalled), accepted=True, look=look)
    return RouteState(Note(reasons.PROBE_FAILED, f"{target.url} gives no prediction: {told}"), accepted=True)


def _lost(case: Case, routing: Routing) -> Note | None:
    """Why Seldon itself says that a version which should answer is loaded nowhere."""
    names = {seldon.model_name(case.world.model, arm.version) for arm in routing.arms if arm.weight > 0}
    found = (view for view in case.world.deployments if isinstance(view, ModelView) and view.name in names)
    return next((note for view in found if (note := models.not_ready(case, view, 1)) is not None), None)


def _result(case: Case, target: ProbeTarget) -> ProbeView | None:
    return next((probe for probe in case.world.probes if probe.target == target), None)
