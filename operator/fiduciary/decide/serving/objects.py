"""The objects that serve: those that are missing or differ are applied, those that nothing needs are deleted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.decide import reasons
from fiduciary.decide.decision import Apply, Delete, Event, Scale
from fiduciary.decide.serving.ability import kinds_missing
from fiduciary.decide.serving.backends import workload
from fiduciary.decide.serving.seldon import course, fit
from fiduciary.decide.serving.storage import secret_obstacle
from fiduciary.decide.serving.wanted import view_of
from fiduciary.decide.step import Note
from fiduciary.manifests import versionnames
from fiduciary.manifests.content import content_of
from fiduciary.manifests.deployment import serving_key
from fiduciary.manifests.plans import VersionPlan
from fiduciary.serving.observed import ChildView, DeploymentView, RouteView
from fiduciary.serving.seldonviews import ExperimentView

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.wanted import Wanted

Body = dict[str, Any]
Kind = DeploymentView | ChildView | RouteView | ExperimentView

HTTP_ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
WAVE_STEP = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=10)
SHORTEST_WAIT = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Kept:
    """Writes that keep versions loaded, what a person should hear of them, and what waits for its turn."""

    children: tuple[Child, ...] = ()
    events: tuple[Event, ...] = ()
    waiting: Note | None = None
    look: datetime | None = None


def plan_of(case: Case, able: Able, wanted: Wanted, *, owned: bool = True) -> VersionPlan:
    """What builders need for one version."""
    return VersionPlan(
        model=case.world.model,
        version=wanted.version,
        replicas=wanted.replicas,
        autoscaled=wanted.autoscaled,
        tracking_uri=able.tracking_uri,
        environment=able.environment,
        owned=owned,
    )


def keep(case: Case, able: Able, versions: tuple[Wanted, ...], *, answering: frozenset[str]) -> Kept:
    """Whatever the versions need and is not there as it should be.

    What confines pods comes before them. A difference that the platform made (a newer runtime image, a newer operator)
    waits for its turn: at most ``Platform.wave`` Deployments of all models roll at once. A difference that the user
    made does not wait.
    """
    children: list[Child] = []
    events: list[Event] = []
    waiting: Note | None = None
    look: datetime | None = None
    rolled = False
    if able.backend.workload_kind[1] in case.world.missing_kinds:
        return Kept(waiting=kinds_missing(case, able))
    for wanted in versions:
        plan = plan_of(case, able, wanted)
        serves = wanted.version.digest in answering
        for body in (*able.backend.shared(plan), *able.backend.companions(plan)):
            view = view_of_body(case, body)
            if not _needs(case, view, body) or any(_same(child, body) for child in children):
                continue
            children.append(applied(body, view))
            events += _told(body, view, restored=serves and case.status.endpoint is not None)
        kind, name = workload(case), versionnames.version_name(case.name, wanted.version.digest or "")
        view = next((found for found in case.world.deployments if (found.kind, found.name) == (kind, name)), None)
        made = made_of(case, able, plan, view)
        if isinstance(made, Note):
            waiting = made
            continue
        body = made
        if view is not None and view.digest != wanted.version.digest:
            message = (
                f"{view.kind} {view.name} serves {view.digest}, not version {wanted.version.version}: it is left alone"
            )
            waiting = Note(reasons.NAME_TAKEN, message, stalled=True)
        elif view is None:
            children.append(applied(body, None))
            told = "vanished and is made again" if serves else "is being loaded"
            kind = "Warning" if serves else "Normal"
            reason = reasons.SERVING_OBJECT_RESTORED if serves else reasons.STARTING
            events.append(Event(kind, reason, f"version {wanted.version.version} {told}"))
        elif view.deleting or not differs(view, content_of(body)[0], case) or settled_for_good(case, view):
            continue
        elif _by_platform(case, able, plan, view) and (rolled or not _turn(case)):
            message = f"version {view.version} gets the newer serving runtime when its turn comes"
            waiting, look = Note(reasons.RUNTIME_UPGRADE_WAITS, message), _next_turn(case)
        else:
            rolled = rolled or _by_platform(case, able, plan, view)
            children.append(applied(body, view))
            events += _told(body, view, restored=False)
    return Kept(tuple(children), tuple(events), waiting, look)


def scaled(case: Case, able: Able, versions: tuple[Wanted, ...], *, down: bool) -> tuple[Child, ...]:
    """Numbers of replicas: up at once, down only when the route has settled. An autoscaler is left alone."""
    scales: list[Child] = []
    for wanted in versions:
        view = view_of(case, wanted.version)
        if view is None or view.deleting:
            continue
        few, many = view.replicas < wanted.replicas, view.replicas > wanted.replicas and not wanted.autoscaled
        if not (few or (many and down)):
            continue
        if view.kind == "InferenceService":
            # KServe's smaller CRD knows no fields: two managers of one spec would take away each other's.
            scales.append(applied(able.backend.workload(plan_of(case, able, wanted)), view))
        elif few and view.kind == "Model" and fit.too_many(case, wanted.replicas) is not None:
            continue  # a Model that asks for more than there is gets none at all
        else:
            scales.append(Scale(view.name, view.uid, wanted.replicas, view.api_version, view.kind))
    return tuple(scales)


def made_of(case: Case, able: Able, plan: VersionPlan, view: DeploymentView | None) -> Body | Note:
    """The object that loads a version, or why it cannot be made: what Seldon would refuse is not asked for."""
    if view is not None and view.kind == "InferenceService":
        plan = replace(plan, replicas=view.replicas)  # how many there are is changed by itself
    unfit = (secret_obstacle(case) or fit.obstacle(case, able, plan.version, plan.replicas)) if view is None else None
    return able.backend.workload(plan) if unfit is None else unfit


def settled_for_good(case: Case, view: DeploymentView) -> bool:
    """A Model is never edited, whatever a newer operator would write: an edit loads another version inside Seldon, and
    one that finds no place takes the old one away. What a hand changed, or another owner, is put right."""
    return view.kind == "Model" and not view.edited and view.owner_uid == case.world.model.metadata.uid


def surplus(case: Case, needs: Sequence[tuple[str, Able, tuple[Wanted, ...]]]) -> tuple[Delete, ...]:
    """Versions that nothing needs any more, and companions that a version does not need any more.

    ``needs``: what each backend has to have loaded, by the kind of its workloads.
    """
    plans = [(able, plan_of(case, able, wanted)) for _, able, versions in needs for wanted in versions]
    needed = {
        (body["kind"], body["metadata"]["name"])
        for able, plan in plans
        for body in (*able.backend.shared(plan), *able.backend.companions(plan))
    }
    loaded = {(kind, wanted.version.digest) for kind, _, versions in needs for wanted in versions}
    digests = {digest for _, digest in loaded}
    listed = {service for service, _ in case.world.route.backends} if case.world.route is not None else set[str]()
    named = course.named(case)

    def sent_to(digest: str, kind: str | None = None) -> bool:
        """Whoever still sends requests to a version must not lose its pods."""
        name = versionnames.version_name(case.name, digest)
        services = {name: "Deployment", versionnames.service_name(case.name, digest, meta.KSERVE): "InferenceService"}
        known = {of for service, of in services.items() if service in listed}
        known |= {"Model"} if name in named else set[str]()
        return digest != "" and (kind in known if kind is not None else bool(known))

    gone = [
        view
        for view in case.world.deployments
        if (view.kind, view.digest) not in loaded and not sent_to(view.digest, view.kind)
    ]
    spare = [
        view
        for view in case.world.children
        if (view.kind, view.name) not in needed and (view.digest in digests or not sent_to(view.digest))
    ]
    return (
        *(deletion(view) for view in gone if not view.deleting),
        *(child_deletion(view) for view in spare if not view.deleting),
    )


def everything(case: Case) -> tuple[Delete, ...]:
    """All that serves: pods first, what confines them last. No Experiment may be left that names a Model."""
    return (
        *(deletion(view) for view in case.world.deployments if not view.deleting),
        *(child_deletion(view) for view in case.world.children if not view.deleting),
    )


def applied(body: Body, view: Kind | None) -> Apply:
    if view is None:
        return Apply(body)
    return Apply(body, uid=view.uid, resource_version=view.resource_version)


def differs(view: Kind, content: str, case: Case, *, owned: bool = True) -> bool:
    """Whether an object has to be applied: other content, changed by somebody, or another owner."""
    owner = case.world.model.metadata.uid if owned else ""
    return view.edited or view.content != content or view.owner_uid != owner


def route_deletion(view: RouteView) -> Delete:
    return Delete(*HTTP_ROUTE, view.name, view.uid)


def deletion(view: DeploymentView) -> Delete:
    return Delete(view.api_version, view.kind, view.name, view.uid)


def child_deletion(view: ChildView) -> Delete:
    return Delete(view.api_version, view.kind, view.name, view.uid)


def _needs(case: Case, view: ChildView | None, body: Body) -> bool:
    return view is None or (not view.deleting and differs(view, content_of(body)[0], case))


def view_of_body(case: Case, body: Body) -> ChildView | None:
    kind, name = body["kind"], body["metadata"]["name"]
    return next((view for view in case.world.children if (view.kind, view.name) == (kind, name)), None)


def _same(child: Child, body: Body) -> bool:
    if not isinstance(child, Apply):
        return False
    return (child.body["kind"], child.body["metadata"]["name"]) == (body["kind"], body["metadata"]["name"])


def _told(body: Body, view: ChildView | DeploymentView | None, *, restored: bool) -> list[Event]:
    """A word to the person who changed what is ours, or took it away."""
    what = f"{body['kind']} {body['metadata']['name']}"
    if view is None:
        return (
            [Event("Warning", reasons.SERVING_OBJECT_RESTORED, f"{what} vanished and is made again")]
            if restored
            else []
        )
    if view.edited and view.content == content_of(body)[0]:
        return [Event("Warning", reasons.SERVING_OBJECT_RESTORED, f"{what} was changed by hand and is set back")]
    return []


def _by_platform(case: Case, able: Able, plan: VersionPlan, view: DeploymentView) -> bool:
    """Whether pods differ though nobody edited them and the user asks for the same as before."""
    same_owner = view.owner_uid == case.world.model.metadata.uid
    return same_owner and not view.edited and view.serving_key == serving_key(plan, able.serving)


def _turn(case: Case) -> bool:
    rollout = case.world.rollout
    return rollout is None or rollout.rolling < case.world.platform.wave


def _next_turn(case: Case) -> datetime:
    """The more models wait, the slower each asks: together they ask a few times a second at most."""
    rollout, wave = case.world.rollout, max(1, case.world.platform.wave)
    ahead = rollout.outdated if rollout is not None else 0
    return case.now + min(LONGEST_WAIT, max(SHORTEST_WAIT, WAVE_STEP * ahead / wave))
