"""Whether a version could take requests now: enough replicas are ready, and a probe reached it by its digest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving import readiness
from fiduciary.decide.serving.ability import kinds_missing
from fiduciary.decide.serving.listing import cold
from fiduciary.decide.serving.routing import routing
from fiduciary.decide.serving.seldon import fit
from fiduciary.decide.serving.seldon.course import split_of
from fiduciary.decide.serving.storage import secret_obstacle
from fiduciary.decide.serving.wanted import ready_of, view_of
from fiduciary.decide.step import Note
from fiduciary.manifests import seldon, versionnames
from fiduciary.serving.observed import ProbeTarget
from fiduciary.serving.seldonviews import ModelView

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able
    from fiduciary.serving.observed import ProbeView


REFUSALS = (400, 413, 415, 422)
"""What a server says to a request that it understands and does not take; 404 or 429 say nothing of the signature."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """``note`` says what is missing, if anything. ``refused``: the challenger's answer to the champion's request."""

    note: Note | None = None
    refused: str | None = None
    look: datetime | None = None

    @property
    def ready(self) -> bool:
        return self.note is None and self.refused is None


def arrival(
    case: Case, history: History, able: Able, version: VersionRef, *, compatible: bool, need: int | None = None
) -> Arrival:
    """The state of a version that has no traffic yet.

    ``need``: replicas; by default as many as the champion has ready, because it takes over all of its requests.
    ``compatible``: it must also answer the champion's own example request.
    """
    view = view_of(case, version)
    if able.backend.workload_kind[1] in case.world.missing_kinds:
        return Arrival(kinds_missing(case, able))
    unfit = (secret_obstacle(case) or fit.obstacle(case, able, version, need or 1)) if view is None else None
    if unfit is not None:
        return Arrival(unfit)
    if view is None or (view.deleting and not isinstance(view, ModelView)):
        return Arrival(Note(reasons.STARTING, f"version {version.version} is about to be loaded"))
    enough = need if need is not None else max(1, ready_of(case, history.champion))
    lacking = readiness.not_ready(case, view, enough)
    if lacking is not None:
        return Arrival(lacking, look=readiness.next_look(case, view))
    reached = _reached(case, direct(case, able, version), version)
    if reached is not None:
        return Arrival(reached)
    route = routing(history)
    unknown = None
    if route is not None and not route.blocked and version.digest not in route.answering:
        unknown = cold(case, able, route, version)
    if compatible and history.champion is not None:
        refused = _imitated(case, able, version, history.champion)
        if not refused.ready:
            return refused
    return Arrival() if unknown is None else Arrival(unknown[0], look=unknown[1])


def _imitated(case: Case, able: Able, version: VersionRef, champion: VersionRef) -> Arrival:
    """Whether the version answers what the champion is asked."""
    probe = _result(case, imitating(case, able, version, champion))
    if probe is None:
        message = f"version {version.version} is asked what the champion is asked"
        return Arrival(Note(reasons.PROBE_PENDING, message))
    if probe.ok:
        return Arrival()
    told = probe.message or f"status {probe.status}"
    if probe.status in REFUSALS:
        return Arrival(refused=told)
    message = f"version {version.version} did not answer the champion's example request: {told}"
    return Arrival(Note(reasons.PROBE_FAILED, message))


def direct(case: Case, able: Able, version: VersionRef) -> ProbeTarget:
    """The version by itself, before any route leads to it."""
    model, address = case.world.model, able.backend.address(case.world.model, version)
    headers = address.headers
    if headers and address.served is not None and split_of(case, address.served) is not None:
        # Its name leads to a split now: past the weights, to itself.
        headers = (*headers, (seldon.PIN_HEADER, seldon.pin(address.served)))
    return ProbeTarget(
        via="Version",
        protocol="rest",
        url=address.url,
        model=versionnames.served_name(model),
        digest=version.digest or "",
        seconds=case.world.platform.probe_seconds,
        served=address.served,
        headers=headers,
    )


def imitating(case: Case, able: Able, version: VersionRef, champion: VersionRef) -> ProbeTarget:
    """The challenger is sent the champion's example request: would clients of today be answered?"""
    return replace(direct(case, able, version), example_url=able.backend.address(case.world.model, champion).url)


def _reached(case: Case, target: ProbeTarget, version: VersionRef) -> Note | None:
    probe = _result(case, target)
    if probe is None:
        return Note(reasons.PROBE_PENDING, f"the first probe of version {version.version} is on its way")
    if not probe.ok:
        told = probe.message or f"status {probe.status}"
        if probe.status == 404 and target.headers:
            message = (
                f"Seldon shows version {version.version} as ready, and the mesh answers {told}: it has no such route. "
                "Restart seldon-scheduler, which sends Envoy all routes anew"
            )
            return Note(reasons.ROUTE_MISSING, message)
        if probe.status == 500 or probe.status in REFUSALS:
            message = (
                f"version {version.version} does not answer the example of its own signature: {told}; shape or type of "
                "its inputs are not what it says. Train it again with a trainer of this release"
            )
            return Note(reasons.SIGNATURE_MISMATCH, message, stalled=True)
        return Note(reasons.PROBE_FAILED, f"version {version.version} does not answer a probe: {told}")
    if probe.digest != version.digest:
        message = f"the Service of version {version.version} is answered by {probe.digest}, not by {version.digest}"
        return Note(reasons.WRONG_VERSION_ANSWERS, message)
    return None


def _result(case: Case, target: ProbeTarget) -> ProbeView | None:
    return next((probe for probe in case.world.probes if probe.target == target), None)
