"""Who answers on the mesh: the Experiment that splits requests, and the Model whose name clients' requests carry.

Requests carry the name of one Model, the *lead*: in the header that the HTTPRoute sets, or that clients read in
``status.endpoint.headers``. A split is an Experiment on the lead's route, and a promotion is one edit of its weights.
Only when probes have seen that the new champion answers everything does the lead become it, and only when nobody can
be sent to the old lead any more does the Experiment go. Each step follows from the log, the stored objects and the
probes; a process that ends between two of them goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary.manifests import seldon
from fiduciary.manifests.versionnames import version_name

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.routing import Routing
    from fiduciary.serving.seldonviews import ExperimentView

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Course:
    """Names of Models. ``lead``: what requests carry now; ``live``: who may answer; ``copied``: who gets copies."""

    lead: str
    live: tuple[str, ...]
    copied: tuple[str, ...]

    @property
    def split(self) -> bool:
        """Whether the lead's own route would not do."""
        return self.live != (self.lead,) or bool(self.copied)

    @property
    def successor(self) -> str:
        """Whose name requests should carry once it is proven that it alone answers."""
        return self.live[0] if len(self.live) == 1 else self.lead


def course(case: Case, history: History, routing: Routing) -> Course:
    """The course that the log asks for, from where the cluster is."""
    live = tuple(_name(case, arm.version) for arm in routing.arms if arm.weight > 0)
    copied = tuple(name for one in routing.mirrored if (name := _name(case, one.version)) not in live)
    return Course(_lead(case, history, routing), live, copied)


def bodies(case: Case, way: Course, routing: Routing, decision: int, *, owned: bool = True) -> tuple[Body, ...]:
    """Experiments as they have to be: the lead's if it is needed, and every one that is there and may still be asked.

    None while nobody may answer: weights that are all 0 would stop the whole mesh, so the HTTPRoute is what blocks.
    """
    if not way.live or routing.blocked:
        return ()
    standing = [view.default for view in case.world.seldon.experiments if not view.deleting and view.default]
    first = [way.lead] if way.split else list[str]()
    defaults: dict[str, None] = dict.fromkeys([*first, *standing])
    return tuple(
        seldon.experiment(case.world.model, decision, default, routing.arms, routing.mirrored, owned_by=owned)
        for default in defaults
        if default == way.lead or _loaded(case, default)
    )


def over(case: Case, way: Course) -> tuple[ExperimentView, ...]:
    """Experiments that nobody needs, once requests carry the present lead's name."""
    return tuple(
        view
        for view in case.world.seldon.experiments
        if not view.deleting and (view.default != way.lead or not way.split)
    )


def named(case: Case) -> frozenset[str]:
    """Models that some request or copy may be sent to: they must not be unloaded."""
    names = {name for view in case.world.seldon.experiments for name in (view.default, *view.names)}
    route, endpoint = case.world.route, case.status.endpoint
    if route is not None and route.lead:
        names.add(route.lead)
    elif route is None and endpoint is not None:
        names.add(endpoint.headers.get(seldon.MODEL_HEADER, ""))
    return frozenset(names - {""})


def split_of(case: Case, lead: str) -> ExperimentView | None:
    """The Experiment on the route of a Model."""
    return next((view for view in case.world.seldon.experiments if view.default == lead and not view.deleting), None)


def _lead(case: Case, history: History, routing: Routing) -> str:
    """Where requests go now, as far as it can be seen; else where they shall go."""
    route, endpoint = case.world.route, case.status.endpoint
    told = route.lead if route is not None else ""
    if not told and route is None and endpoint is not None:
        told = endpoint.headers.get(seldon.MODEL_HEADER, "")
    standing = [view.default for view in case.world.seldon.experiments if not view.deleting]
    known = {_name(case, one) for one in (history.champion, history.challenger, *history.former) if one is not None}
    for name in (told, *standing):
        if name in known and _loaded(case, name):
            return name
    live = [arm.version for arm in routing.arms if arm.weight > 0] or [routing.arms[0].version]
    return _name(case, live[0])


def _loaded(case: Case, name: str) -> bool:
    return any(view.kind == "Model" and view.name == name and not view.deleting for view in case.world.deployments)


def _name(case: Case, version: VersionRef) -> str:
    return version_name(case.name, version.digest or "")
