"""What stands behind the serving half of a simulated world: objects, a node, a gateway, and probes that see them.

The node makes pods ready and the gateway takes routes over at the next look, unless a test holds them back. What a
probe sees follows from what the gateway has taken over, not from what was written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.decide.decision import Apply, Create, Delete, Scale
from fiduciary.manifests import versionnames
from fiduciary.manifests.content import asked_annotation, content_of
from fiduciary.serving.observed import (
    ChildView,
    DeploymentView,
    GatewayView,
    ParentStatus,
    ProbeView,
    RouteView,
    ServingPod,
)
from fiduciary.serving.seldonviews import ModelView
from tests.unit.decide.simulated_mesh import SimulatedMesh, named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.decide.decision import Child
    from fiduciary.decide.world import World
    from fiduciary.serving.observed import ProbeTarget

Body = dict[str, Any]
Place = tuple[str, str]  # kind, name

GATEWAY = GatewayView("projectcontour", "contour", "http://10.0.0.1", programmed=True)
SERVES = frozenset(
    {
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "ServiceAccount",
        "HTTPRoute",
        "Model",
        "Experiment",
        "InferenceService",
    }
)
WORKLOADS = ("Deployment", "Model", "InferenceService")
OURS = (meta.SERVING, meta.KSERVE)
OTHER_DIGEST = "sha256:" + "f" * 64


class Refused(Exception):
    """The API server refused a write: another object, or another state of it, than was meant."""


@dataclass
class Stored:
    """An object of the cluster."""

    body: Body
    uid: str
    version: int
    created_at: datetime
    generation: int = 1
    confirmed: int = 0  # generation that the gateway has taken over
    confirmed_at: datetime | None = None
    written_at: datetime | None = None
    replicas: int = 1
    ready: int = 0
    rolled: bool = True
    leaving: int = 0  # ready pods that are being deleted
    new: tuple[Mapping[str, Any], ...] = ()  # pods of a newer template that do not get ready
    overdue: bool = False

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])


@dataclass
class SimulatedServing:
    """Everything that serves. A test turns what it wants to go wrong."""

    objects: dict[Place, Stored] = field(default_factory=dict[Place, Stored])
    gateways: tuple[GatewayView, ...] = (GATEWAY,)
    missing_kinds: frozenset[str] = frozenset()
    node_works: bool = True
    controller_works: bool = True
    prober_works: bool = True
    taken_over: dict[str, int] = field(default_factory=dict[str, int])  # Service -> weight, as clients see it
    taken_lead: str = ""
    broken: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])  # digest -> pod
    loads: dict[str, str] = field(default_factory=dict[str, str])  # digest -> what its pods really are
    refuses_imitation: set[str] = field(default_factory=set[str])  # digests that answer 400 to the champion's example
    hijacked_by: str | None = None
    route_status: Mapping[str, Any] = field(default_factory=dict[str, Any])
    mesh: SimulatedMesh = field(default_factory=SimulatedMesh)
    asked: tuple[ProbeTarget, ...] = ()
    probing_since: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)  # long ago; None: the operator has just started
    results: dict[ProbeTarget, ProbeView] = field(default_factory=dict["ProbeTarget", ProbeView])
    writes: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])  # verb, kind, name
    history: list[tuple[int, dict[str, int]]] = field(default_factory=list[tuple[int, dict[str, int]]])  # of the route
    _uids: int = 0

    # -- what a test looks at

    @property
    def route(self) -> Stored | None:
        return next((stored for (kind, _), stored in self.objects.items() if kind == "HTTPRoute"), None)

    def weights(self) -> dict[str, int]:
        """What the stored route says: Service -> weight."""
        return {} if self.route is None else _weights(self.route.body)

    def deployment(self, digest: str, workload: str = "Deployment") -> Stored | None:
        return next(
            (
                stored
                for (kind, _), stored in self.objects.items()
                if kind == workload and stored.body["metadata"]["annotations"][meta.ANNOTATION_DIGEST] == digest
            ),
            None,
        )

    def names(self, kind: str) -> list[str]:
        return sorted(name for found, name in self.objects if found == kind)

    # -- what others do

    def turn(self, now: datetime) -> None:
        """The node, the gateway and the prober do their work."""
        for (kind, _), stored in self.objects.items():
            if kind in ("Deployment", "InferenceService") and self.node_works:
                digest = stored.body["metadata"]["annotations"][meta.ANNOTATION_DIGEST]
                stored.ready = 0 if digest in self.broken else stored.replicas
                stored.rolled = stored.ready == stored.replicas
        self.mesh.turn(dict(named(self.objects, "Model")), dict(named(self.objects, "Experiment")), now)
        if self.controller_works:
            route = self.route
            if route is not None and route.confirmed != route.generation and not self.route_status:
                route.confirmed, route.confirmed_at = route.generation, now
            self.taken_over = {} if route is None or self.route_status else _weights(route.body)
            self.taken_lead = _lead(route.body) if route is not None else ""
        if self.prober_works:
            self._probe(now)

    def edit(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Somebody edits an object by hand."""
        stored = self.objects[kind, name]
        stored.body = {**stored.body, **change}
        self._changed(stored)

    def delete(self, kind: str, name: str) -> None:
        """Somebody deletes an object by hand, or its owner went."""
        del self.objects[kind, name]

    def collect(self, uid: str) -> None:
        """The garbage collector: what the object with this UID owned goes."""
        for place in [place for place, stored in self.objects.items() if _owner(stored.body) == uid]:
            del self.objects[place]

    # -- what the engine does

    def carry_out(self, child: Child, now: datetime) -> bool:
        """Whether the child was one of ours."""
        match child:
            case Create(body) | Apply(body) if body["kind"] not in SERVES or _component(body) not in OURS:
                return False
            case Apply(body, uid, version):
                self._apply(dict(body), uid, version, now)
            case Scale(name, uid, replicas, _, kind):
                stored = self.objects.get((kind, name))
                if stored is None or stored.uid != uid:
                    raise Refused(f"scale {name}")
                stored.replicas, stored.rolled = replicas, False
                self._changed(stored)
                self.writes.append(("scale", kind, name))
            case Delete(kind=kind, name=name, uid=uid) if kind in SERVES:
                stored = self.objects.get((kind, name))
                if stored is not None:
                    if stored.uid != uid:
                        raise Refused(f"delete {kind} {name}")
                    del self.objects[kind, name]
                    self.writes.append(("delete", kind, name))
            case _:
                return False
        return True

    def observed(self, world: World) -> World:
        """The world with what is seen of all this."""
        placed = sorted(self.objects.items())
        return replace(
            world,
            deployments=tuple(
                self._deployment(kind, name, stored) for (kind, name), stored in placed if kind in WORKLOADS
            ),
            children=tuple(
                _child(kind, name, stored)
                for (kind, name), stored in placed
                if kind not in (*WORKLOADS, "HTTPRoute", "Experiment")
            ),
            seldon=self.mesh.view(dict(named(self.objects, "Experiment"))),
            route=next((self._route(name, stored) for (kind, name), stored in placed if kind == "HTTPRoute"), None),
            gateways=self.gateways,
            missing_kinds=self.missing_kinds,
            probing_since=self.probing_since,
            probes=tuple(self.results[target] for target in self.asked if target in self.results),
        )

    # -- inside

    def _apply(self, body: Body, uid: str | None, version: str | None, now: datetime) -> None:
        place = (body["kind"], body["metadata"]["name"])
        stored = self.objects.get(place)
        if stored is None:
            if uid is not None:
                raise Refused(f"{place} is gone")
            self._uids += 1
            stored = self.objects[place] = Stored(body, f"serving-{self._uids}", 1, now)
        else:
            if uid is None or uid != stored.uid or (version is not None and version != str(stored.version)):
                raise Refused(f"{place} is another one, or changed")
            rolls = place[0] in WORKLOADS and stored.body["spec"] != body["spec"]
            if place[0] == "HTTPRoute":
                self._nobody_is_dropped(_weights(body))
            stored.body, stored.rolled = body, stored.rolled and not rolls
            self._changed(stored)
        if place[0] == "InferenceService":
            stored.replicas = body["spec"]["predictor"]["minReplicas"]
        stored.written_at = now
        self.writes.append(("apply", *place))
        if place[0] == "HTTPRoute":
            self.history.append((_decision(body), _weights(body)))

    def _nobody_is_dropped(self, after: Mapping[str, int]) -> None:
        """A proxy that forgets a backend before it has the shares without it answers 503 in between."""
        dropped = {name for name, weight in self.taken_over.items() if weight > 0 and name not in after}
        loaded = {name for name in dropped if ("Service", name) in self.objects or name == "seldon-mesh"}
        assert not loaded, f"{loaded} gets requests and is taken out of the route in one write: {dict(after)}"

    @staticmethod
    def _changed(stored: Stored) -> None:
        stored.version += 1
        stored.generation += 1
        stored.confirmed_at = None

    def _probe(self, now: datetime) -> None:
        for target in self.asked:
            before = self.results.get(target)
            # As the prober: looks from before a change are among them for a while.
            earlier = [probe.drawn for old, probe in self.results.items() if old.url == target.url and old != target]
            counts = Counter[str](dict(earlier[-1]) if earlier and before is None else {})
            looks = [
                self._route_answer(target) if target.via == "Route" else self._version_answer(target)
                for _ in range(target.draws)
            ]
            ok, status, digest, message = min(looks, key=lambda look: (look[0], sum(o[2] == look[2] for o in looks)))
            counts.update(look[2] for look in looks)
            same = before is not None and (before.ok, before.status, before.digest) == (ok, status, digest)
            since = before.since if same and before is not None else now
            version = "" if not digest else digest.removeprefix("sha256:")[:4]
            self.results[target] = ProbeView(
                target, now, ok, status, version, digest, message, 0.004, since,
                drawn=tuple(sorted(counts.items())) if ok and target.draws > 1 else (),
            )  # fmt: skip

    def _route_answer(self, target: ProbeTarget) -> tuple[bool, int | None, str, str]:
        if self.hijacked_by is not None and ("Deployment", self.hijacked_by) in self.objects:
            return self._pods_answer(self.hijacked_by)
        if self.hijacked_by is not None:
            return False, 200, "", "an answer without fiduciary-digest"
        if target.headers:
            return self._mesh_answer(dict(target.headers))
        if not self.taken_over:
            return False, 404, "", "status 404"
        service = next((name for name, weight in self.taken_over.items() if weight > 0), None)
        if service is None:
            return False, 500, "", "status 500"
        if service == "seldon-mesh":
            return self._mesh_answer({"seldon-model": self.taken_lead})
        return self._pods_answer(service)

    def _version_answer(self, target: ProbeTarget) -> tuple[bool, int | None, str, str]:
        if target.example_url is not None and target.digest in self.refuses_imitation:
            return False, 400, target.digest, "column volume is missing"
        if target.headers:
            return self._mesh_answer(dict(target.headers))
        service = target.url.removeprefix("http://").partition(".")[0]
        return self._pods_answer(service)

    def _mesh_answer(self, headers: Mapping[str, str]) -> tuple[bool, int | None, str, str]:
        name = self.mesh.draw(headers)
        stored = self.objects.get(("Model", name)) if name is not None else None
        if stored is None:
            return False, 404, "", "status 404"
        digest = stored.body["metadata"]["annotations"][meta.ANNOTATION_DIGEST]
        return True, 200, self.loads.get(digest, digest), ""

    def _pods_answer(self, service: str) -> tuple[bool, int | None, str, str]:
        place = ("InferenceService", service[:-3]) if service.endswith("-ks") else ("Deployment", service)
        deployment = self.objects.get(place)
        if ("Service", service) not in self.objects or deployment is None or deployment.ready == 0:
            return False, 503, "", "status 503"
        digest = deployment.body["metadata"]["annotations"][meta.ANNOTATION_DIGEST]
        return True, 200, self.loads.get(digest, digest), ""

    def _deployment(self, kind: str, name: str, stored: Stored) -> DeploymentView:
        metadata = stored.body["metadata"]
        digest = metadata["annotations"][meta.ANNOTATION_DIGEST]
        content, edited = content_of(stored.body)
        wrong = self.broken.get(digest, {})
        pods = tuple(
            ServingPod(
                f"{name}-{number}",
                "Running" if number < stored.ready else str(wrong.get("phase", "Pending")),
                ready=number < stored.ready,
                created_at=stored.created_at,
                deleting=number < stored.leaving,
                image_id="docker.io/fiduciary-server@sha256:" + "5" * 64,
                **{key: value for key, value in wrong.items() if key != "phase"},
            )
            for number in range(stored.replicas)
        )
        if kind == "Model":
            return self._model(name, stored)
        return DeploymentView(
            kind=kind,
            api_version=stored.body["apiVersion"],
            name=name,
            uid=stored.uid,
            resource_version=str(stored.version),
            digest=digest,
            version=metadata["labels"][meta.LABEL_VERSION],
            content=content,
            edited=edited,
            serving_key=metadata["annotations"][meta.ANNOTATION_SERVING_KEY],
            image=(stored.body["spec"].get("template", {}).get("spec") or stored.body["spec"]["predictor"])[
                "containers"
            ][0]["image"],
            created_at=stored.created_at,
            owner_uid=_owner(stored.body),
            replicas=stored.replicas,
            ready=stored.ready,
            updated=stored.replicas if not stored.new else len(stored.new),
            available=stored.ready,
            total=stored.replicas + len(stored.new),
            observed=True,
            overdue=stored.overdue,
            pods=(
                *pods,
                *(ServingPod(f"{name}-new", "Pending", created_at=stored.created_at, **pod) for pod in stored.new),
            ),
        )

    def _model(self, name: str, stored: Stored) -> ModelView:
        metadata, spec = stored.body["metadata"], stored.body["spec"]
        content, edited = content_of(stored.body)
        view = ModelView(
            kind="Model",
            api_version=stored.body["apiVersion"],
            name=name,
            uid=stored.uid,
            resource_version=str(stored.version),
            digest=metadata["annotations"][meta.ANNOTATION_DIGEST],
            version=metadata["labels"][meta.LABEL_VERSION],
            content=content,
            edited=edited,
            serving_key=metadata["annotations"][meta.ANNOTATION_SERVING_KEY],
            image="",
            created_at=stored.created_at,
            owner_uid=_owner(stored.body),
            replicas=stored.replicas,
            ready=stored.replicas,
            updated=stored.replicas,
            available=stored.replicas,
            total=stored.replicas,
            observed=True,
            requirements=tuple(spec["requirements"]),
            server=spec.get("server", ""),
        )
        return self.mesh.model(view, name)

    def _route(self, name: str, stored: Stored) -> RouteView:
        content, edited = content_of(stored.body)
        return RouteView(
            name=name,
            uid=stored.uid,
            resource_version=str(stored.version),
            generation=stored.generation,
            decision=_decision(stored.body),
            content=content,
            edited=edited,
            owner_uid=_owner(stored.body),
            backends=tuple(_weights(stored.body).items()),
            lead=_lead(stored.body),
            parents=tuple(self._parents(stored)),
            written_at=stored.written_at,
            confirmed_at=stored.confirmed_at,
        )

    def _parents(self, stored: Stored) -> list[ParentStatus]:
        if stored.confirmed == 0 and not self.route_status:
            return []
        return [
            ParentStatus(
                **{
                    "namespace": ref.get("namespace", "quant"),
                    "name": ref["name"],
                    "section": ref.get("sectionName"),
                    "controller": "example.com/gateway",
                    "accepted": True,
                    "resolved": True,
                    "observed_generation": stored.generation if self.route_status else stored.confirmed,
                    **self.route_status,
                }
            )
            for ref in stored.body["spec"]["parentRefs"]
        ]


def _child(kind: str, name: str, stored: Stored) -> ChildView:
    content, edited = content_of(stored.body)
    return ChildView(
        api_version=stored.body["apiVersion"],
        kind=kind,
        name=name,
        uid=stored.uid,
        resource_version=str(stored.version),
        content=content,
        edited=edited,
        owner_uid=_owner(stored.body),
        digest=stored.body["metadata"].get("annotations", {}).get(meta.ANNOTATION_DIGEST, ""),
    )


def _weights(body: Mapping[str, Any]) -> dict[str, int]:
    return {ref["name"]: ref["weight"] for ref in body["spec"]["rules"][0]["backendRefs"]}


def _lead(body: Mapping[str, Any]) -> str:
    for entry in body["spec"]["rules"][0].get("filters", ()):
        for header in entry.get("requestHeaderModifier", {}).get("set", ()):
            return str(header["value"])
    return ""


def _decision(body: Mapping[str, Any]) -> int:
    return int(asked_annotation(body, meta.ANNOTATION_DECISION) or 0)


def _owner(body: Mapping[str, Any]) -> str:
    return next((owner["uid"] for owner in body["metadata"].get("ownerReferences", ())), "")


def _component(body: Mapping[str, Any]) -> str:
    return body["metadata"].get("labels", {}).get(meta.LABEL_COMPONENT, "")


def service_of(name: str, digest: str | None) -> str:
    return versionnames.version_name(name, digest or "")
