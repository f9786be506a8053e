"""Which versions have to be loaded, and with how many replicas.

Capacity comes before traffic and goes after it: a version that should take requests is scaled up first, the one that
took them before keeps its replicas for ``promotion.rollbackWindow``, and what is kept beyond it (``keepVersions``)
stays loaded with one replica, so that a way back waits for no download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.serving.backends import workload
from fiduciary.decide.serving.following import exposure, pods_for, window_end
from fiduciary.decide.serving.shadow import compared
from fiduciary.decide.serving.waysback import ways_back

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.decide.serving.will import Will
    from fiduciary.serving.observed import DeploymentView

KEPT_REPLICAS = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version that has to be loaded. ``autoscaled``: an autoscaler has the number, ``replicas`` is its minimum."""

    version: VersionRef
    replicas: int
    autoscaled: bool = False


def wanted(case: Case, history: History, able: Able, routing: Routing | None, will: Will | None) -> tuple[Wanted, ...]:
    """Versions to load, those that answer first; each artifact once."""
    found: list[Wanted] = []

    def add(version: VersionRef | None, replicas: int, *, autoscaled: bool = False) -> None:
        if version is None or version.digest is None:
            return
        if all(other.version.digest != version.digest for other in found):
            found.append(Wanted(version, replicas, autoscaled))

    usual, champion, challenger = usual_replicas(able), history.champion, history.challenger
    full = max(usual, ready_of(case, champion))
    tried = pods_for(exposure(case, history), full) if challenger is not None else 0
    answering = routing.answering if routing is not None else frozenset[str]()
    scales = able.serving.autoscaling is not None
    for arm in routing.arms if routing is not None else ():
        if arm.weight > 0:
            # With the switch engaged a version answers that may have been kept small: it gets what a champion has.
            mine = tried if _same(arm.version, challenger) and not _same(arm.version, champion) else usual
            taking_over = will is not None and _same(arm.version, will.version)
            add(arm.version, max(mine, full) if taking_over else mine, autoscaled=scales)
    if will is not None:
        add(will.version, full)
    if champion is not None:
        # Blocked, or not routed yet: it keeps what it has, and gets what it will need.
        kept = _replicas(case, champion) if champion.digest not in answering and routing is not None else 0
        add(champion, max(usual, kept))
    ways = ways_back(history)
    if case.now < window_end(case, history):
        # The way back, and what was left: whoever left it in error goes forth again.
        for version in (*ways[:1], *history.former[:1]):
            add(version, max(usual, _replicas(case, version)))
    before = compared(case, history)
    if before is not None:
        add(before, max(usual, _replicas(case, before)))  # it takes copies of all requests
    add(challenger, max(KEPT_REPLICAS, tried))
    for version in ways[: able.serving.keep_versions - 1]:
        add(version, KEPT_REPLICAS)
    return tuple(found)


def usual_replicas(able: Able) -> int:
    """Replicas of a champion: the spec's, or the fewest that autoscaling may leave."""
    autoscaling = able.serving.autoscaling
    return autoscaling.min if autoscaling is not None else able.serving.replicas or 1


def _same(one: VersionRef, other: VersionRef | None) -> bool:
    return other is not None and one.digest == other.digest


def view_of(case: Case, version: VersionRef | None) -> DeploymentView | None:
    """What loads a version with the backend that serves, if it exists."""
    if version is None:
        return None
    kind = workload(case)
    return next((v for v in case.world.deployments if (v.kind, v.digest) == (kind, version.digest)), None)


def ready_of(case: Case, version: VersionRef | None) -> int:
    view = view_of(case, version)
    return 0 if view is None else view.able


def _replicas(case: Case, version: VersionRef) -> int:
    view = view_of(case, version)
    return 0 if view is None else view.replicas
