"""A change of ``spec.serving.backend`` on a live model: the new backend is proven before the old one goes.

Everything goes on with the backend of the log. Beside it the new one loads each version that answers, with the
replicas that it has; a probe reaches each by its digest; gateways learn the new addresses with weight 0. Then one
record says what serves from now on, one write to the route moves every request, and what served before goes after the
drain. It waits for an experiment that is under way; one that has not begun waits for it (``following.queue``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving import objects
from fiduciary.decide.serving.ability import Able, ability, route_obstacle
from fiduciary.decide.serving.arrival import arrival, direct
from fiduciary.decide.serving.backends import coming, in_force, service_of, workload
from fiduciary.decide.serving.following import active, watches, window_end
from fiduciary.decide.serving.listing import UNSEEN, WARMING
from fiduciary.decide.serving.wanted import Wanted, ready_of, usual_replicas
from fiduciary.decide.step import Note
from fiduciary.manifests import seldon

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.serving.observed import ProbeTarget


@dataclass(frozen=True, slots=True)
class Heir:
    """What the coming backend needs. ``note``: why it does not serve yet; ``listed``: what gateways have to learn."""

    needs: tuple[tuple[str, Able, tuple[Wanted, ...]], ...] = ()
    children: tuple[Child, ...] = ()
    probes: tuple[ProbeTarget, ...] = ()
    listed: tuple[tuple[str, int | None], ...] = ()
    note: Note | None = None
    look: datetime | None = None

    @property
    def ready(self) -> bool:
        return bool(self.needs) and self.note is None


def after(case: Case, history: History) -> Case:
    """The case as it is once ``history`` is the log: a record may just have named another backend."""
    name = in_force(case, history)
    return case if name == in_force(case) else replace(case, assumed=name)


def heir(case: Case, history: History, route: Routing | None, *, ready: bool = True) -> Heir:
    """The coming backend; an empty one where nothing is to be changed, or not now."""
    name = coming(case)
    if name is None or route is None or route.blocked or not ready:
        return Heir()
    compared = _under_way(case, history, name)
    if compared is not None:
        return Heir(note=_waits(case, name, compared))
    other = replace(case, assumed=name)
    able = ability(other)
    hindered = route_obstacle(other, able) if isinstance(able, Able) else able
    if not isinstance(able, Able) or hindered is not None:
        return Heir(note=_waits(case, name, hindered)) if hindered is not None else Heir()
    answering = [arm.version for arm in route.arms if arm.weight > 0]
    versions = tuple(Wanted(one, max(usual_replicas(able), ready_of(case, one))) for one in answering)
    kept = objects.keep(other, able, versions, answering=frozenset())
    scales = objects.scaled(other, able, versions, down=False)
    probes = tuple(direct(other, able, one) for one in answering if ready_of(other, one) > 0)
    needs = ((workload(other), able, versions),)
    lacking, look = kept.waiting, kept.look
    for one in answering:
        state = arrival(other, history, able, one, compatible=False, need=max(1, ready_of(case, one)))
        lacking, look = lacking or state.note, look or state.look
    # Known to gateways as soon as there is somebody: a probe that is late takes nothing back.
    listed = _addresses(other, route) if all(ready_of(other, one) > 0 for one in answering) else ()
    if lacking is None:
        lacking, look = _cold(case, able, listed)
    note = _waits(case, name, lacking) if lacking is not None else None
    return Heir(needs, (*kept.children, *scales), probes, listed, note, look)


def _under_way(case: Case, history: History, name: str) -> Note | None:
    """Why requests must not be answered elsewhere now: an experiment compares them where they are counted.

    One that watches its champion goes on with the counters of the same pods' names; in Seldon's Servers they are
    others'.
    """
    mx = active(case, history)
    if mx is None or mx.status.challenger is None:
        return None  # it has not begun
    experiment, version = f"ModelExperiment {mx.metadata.name}", mx.status.challenger.version
    if not watches(mx, history):
        what = f"{experiment} compares version {version}, and its evidence is of one place: wait, or delete it"
        return Note(reasons.BACKEND_CHANGING, what)
    if "Seldon" not in (name, in_force(case)):
        return None
    end = window_end(case, history)
    what = f"{experiment} watches version {version} until {end:%Y-%m-%d %H:%M:%S} UTC: wait, or delete it"
    return Note(reasons.BACKEND_CHANGING, what)


def _waits(case: Case, name: str, why: Note) -> Note:
    before = in_force(case)
    message = f"serving moves from {before} to {name} once that is proven; {before} serves until then: {why.message}"
    return Note(reasons.BACKEND_CHANGING if not why.stalled else why.reason, message, why.stalled)


def _addresses(other: Case, route: Routing) -> tuple[tuple[str, int | None], ...]:
    """What the HTTPRoute will name, over REST and over gRPC. A mesh has one port for both."""
    port = seldon.MESH_PORT if in_force(other) == "Seldon" else None
    return tuple(dict.fromkeys((service_of(other, arm.version), port) for arm in route.arms if arm.weight > 0))


def _cold(case: Case, able: Able, listed: tuple[tuple[str, int | None], ...]) -> tuple[Note | None, datetime | None]:
    """Whether gateways know the addresses already: they would lose requests otherwise."""
    view = case.world.route
    if view is None or not able.gateway.parent_refs:
        return None, None
    note = Note(reasons.ROUTE_PENDING, "gateways learn its addresses before they get requests")
    known = {name for name, _ in view.backends}
    if not {name for name, _ in listed} <= known:
        return note, None
    warm = view.confirmed_at + WARMING if view.confirmed_at is not None else (view.written_at or case.now) + UNSEEN
    return (note, warm) if case.now < warm else (None, None)
