"""What is kept of the objects that serve: Deployments and their pods, a version's other objects, routes, Gateways.

As in :mod:`fiduciary.engine.kinds`, a projection keeps what a decision reads. What we asked for is on the objects
themselves (see :mod:`fiduciary.manifests.content`), so the mirror keeps a digest and one bit of it. What the objects of
one version, or all objects, repeat is kept once.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from fiduciary.api import meta
from fiduciary.clients.kube import Body
from fiduciary.engine.kinds import annotations_of, created, entries, labels_of, moment, part
from fiduciary.manifests.content import asked_annotation, content_of
from fiduciary.manifests.inferenceservice import CONTAINER
from fiduciary.manifests.seldon import MODEL_HEADER
from fiduciary.serving.observed import ChildView, DeploymentView, GatewayView, ParentStatus, RouteView, ServingPod

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SERVER = "server"
SERVERS = (SERVER, CONTAINER)
CRASHING = "CrashLoopBackOff"
LOST = ("Unknown", "ContainerStatusUnknown")
"""How containerd and the kubelet call the end of a run of which they know nothing: the node went down."""


def deployment(body: Body) -> DeploymentView:
    metadata, spec, status = body["metadata"], part(body, "spec"), part(body, "status")
    content, edited = content_of(body)
    containers = entries(part(part(spec, "template"), "spec"), "containers")
    lent_by = _lent_by(metadata)
    return DeploymentView(
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        digest=intern(annotations_of(body).get(meta.ANNOTATION_DIGEST, "")),
        version=intern(labels_of(body).get(meta.LABEL_VERSION, "")),
        content=content,
        image=intern(
            next((container.get("image", "") for container in containers if container["name"] in SERVERS), "")
        ),
        created_at=created(body),
        # What is asked for in a Deployment of KServe's was asked of the InferenceService.
        edited=edited and not lent_by,
        serving_key=annotations_of(body).get(meta.ANNOTATION_SERVING_KEY, ""),
        owner_uid=owner(metadata),
        replicas=spec.get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        total=status.get("replicas", 0),
        observed=status.get("observedGeneration") == metadata.get("generation"),
        failure=_failure(status),
        overdue=any(c.get("reason") == "ProgressDeadlineExceeded" for c in entries(status, "conditions")),
        deleting="deletionTimestamp" in metadata,
        lent_by=lent_by,
    )


def _lent_by(metadata: Body) -> str:
    makers = (one["name"] for one in entries(metadata, "ownerReferences") if one["kind"] == "InferenceService")
    return intern(next(makers, ""))


def _failure(status: Body) -> str:
    """Why no pod can be made, if that is so: a quota or an admission policy."""
    for condition in entries(status, "conditions"):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return condition.get("message") or condition.get("reason", "")
    return ""


def pod(body: Body) -> ServingPod:
    """A pod that serves, with the container that explains its state best."""
    metadata, status = body["metadata"], part(body, "status")
    inits, servers = entries(status, "initContainerStatuses"), entries(status, "containerStatuses")
    told = max(inits + servers, key=_telling, default=Body())
    state = part(told, "state")
    waiting, last = part(state, "waiting"), part(part(told, "lastState"), "terminated")
    ended = part(state, "terminated") or last
    # What a container wrote when it ended has a form (see servingdocument), and is read as such, not as words.
    container, message = told.get("name", ""), waiting.get("message", "")
    reason = (waiting or part(state, "terminated")).get("reason", "")
    ready = next((one for one in entries(status, "conditions") if one["type"] == "Ready"), Body())
    if itself := _of_the_pod(status, started="running" in state or bool(ended)):
        container, (reason, message) = "", itself
    return ServingPod(
        name=intern(metadata["name"]),
        phase=status.get("phase", "Unknown"),
        ready=ready.get("status") == "True",
        container=container,
        reason=reason,
        message=message,
        last_reason=last.get("reason", ""),
        exit_code=ended.get("exitCode"),
        termination_message=ended.get("message", "") if container else "",
        restarts=sum(status.get("restartCount", 0) for status in servers),
        created_at=created(body),
        unready_since=moment(ready.get("lastTransitionTime")) if ready.get("status") != "True" else None,
        image_id=intern(next((status.get("imageID", "") for status in servers if status["name"] in SERVERS), "")),
        deleting="deletionTimestamp" in metadata,
        failed=sum(map(_failed, servers)),
        unready=any(
            "running" in part(one, "state") and one.get("started") is True and not one.get("ready") for one in servers
        ),
        lost=any(part(part(one, "lastState"), "terminated").get("reason") in LOST for one in servers),
    )


def _failed(container: Body) -> bool:
    """Whether it ended with an error and waits to be started again."""
    state = part(container, "state")
    return bool(part(state, "terminated").get("exitCode")) or part(state, "waiting").get("reason") == CRASHING


def _telling(container: Body) -> int:
    """How much the state of a container explains: what failed, then what has failed before, then what goes on.

    Of equal ones the first counts: the init container before the server, which waits for it.
    """
    state = part(container, "state")
    waiting, ended = part(state, "waiting"), part(state, "terminated")
    if ended.get("exitCode") or waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
        return 3
    if part(part(container, "lastState"), "terminated").get("exitCode"):
        return 2
    return 0 if ended else 1


def _of_the_pod(status: Body, *, started: bool) -> tuple[str, str] | None:
    """(reason, message) where the pod itself says more than its containers: evicted, or on no node."""
    if status.get("reason"):
        return status["reason"], status.get("message", "")
    if not started:
        for condition in entries(status, "conditions"):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return condition.get("reason", ""), condition.get("message", "")
    return None


def deployment_of_pod(body: Body) -> str:
    """Name of the Deployment whose ReplicaSet made this pod (named ``<deployment>-<hash>``), or empty."""
    for owner in entries(body["metadata"], "ownerReferences"):
        if owner.get("controller") and owner["kind"] == "ReplicaSet":
            return str(owner["name"]).rpartition("-")[0]
    return ""


def child(body: Body) -> ChildView:
    metadata = body["metadata"]
    content, edited = content_of(body)
    return ChildView(
        api_version=intern(body["apiVersion"]),
        kind=intern(body["kind"]),
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        content=content,
        edited=edited,
        owner_uid=owner(metadata),
        digest=intern(annotations_of(body).get(meta.ANNOTATION_DIGEST, "")),
        deleting="deletionTimestamp" in metadata,
    )


def route(body: Body, before: RouteView | None, now: datetime) -> RouteView:
    """``before``: the view of the state before, which knows since when this generation is known, and is confirmed."""
    metadata, spec = body["metadata"], part(body, "spec")
    content, edited = content_of(body)
    rules = entries(spec, "rules")
    backends = entries(rules[0], "backendRefs") if rules else []
    generation = metadata.get("generation", 0)
    parents = tuple(_parent(entry, metadata["namespace"]) for entry in entries(part(body, "status"), "parents"))
    wanted = {_place(ref, metadata["namespace"]) for ref in entries(spec, "parentRefs")}
    told = {(parent.namespace, parent.name, parent.section) for parent in parents}
    confirmed = (
        bool(parents)
        and wanted <= told
        and all(parent.accepted and parent.resolved and parent.observed_generation == generation for parent in parents)
    )
    known = before if before is not None and (before.uid, before.generation) == (metadata["uid"], generation) else None
    return RouteView(
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=generation,
        decision=decision_of(body),
        content=content,
        edited=edited,
        owner_uid=owner(metadata),
        backends=tuple((ref["name"], ref.get("weight", 1)) for ref in backends),
        lead=_lead(rules[0]) if rules else "",
        parents=parents,
        written_at=written(metadata),
        seen_at=(known.seen_at if known else None) or (now if before else _changed(metadata, now)),
        confirmed_at=((known.confirmed_at if known else None) or now) if confirmed else None,
        deleting="deletionTimestamp" in metadata,
    )


def written(metadata: Body) -> datetime | None:
    """When we wrote it last."""
    times = [e["time"] for e in entries(metadata, "managedFields") if e.get("manager") == meta.FIELD_MANAGER]
    return moment(max(times, default=None))


def _changed(metadata: Body, now: datetime) -> datetime:
    """When anybody changed more than its status: to a new process the route is new, to its controller it is not."""
    times = [e["time"] for e in entries(metadata, "managedFields") if "time" in e and not e.get("subresource")]
    return min(moment(max(times, default=None)) or now, now)


def _lead(rule: Body) -> str:
    """Whose name a mesh is told, where the rule leads to one."""
    for entry in entries(rule, "filters"):
        for header in entries(part(entry, "requestHeaderModifier"), "set"):
            if header.get("name") == MODEL_HEADER:
                return str(header.get("value", ""))
    return ""


def _place(ref: Body, namespace: str) -> tuple[str, str, str | None]:
    return ref.get("namespace") or namespace, ref.get("name", ""), ref.get("sectionName")


def decision_of(body: Body) -> int:
    """The record that a route carries out, 0 where it names none: as we applied it, for a hand may have changed it."""
    text = asked_annotation(body, meta.ANNOTATION_DECISION) or annotations_of(body).get(meta.ANNOTATION_DECISION, "")
    return int(text) if text.isdecimal() else 0


def _parent(entry: Body, namespace: str) -> ParentStatus:
    gateway_namespace, name, section = _place(part(entry, "parentRef"), namespace)
    found = {condition["type"]: condition for condition in entries(entry, "conditions")}
    both = [found.get(kind, Body()) for kind in ("Accepted", "ResolvedRefs")]
    accepted, resolved = (condition.get("status") == "True" for condition in both)
    wrong = next((condition for condition in both if condition and condition.get("status") != "True"), Body())
    return ParentStatus(
        namespace=gateway_namespace,
        name=name,
        section=section,
        controller=entry.get("controllerName", ""),
        accepted=accepted,
        resolved=resolved,
        observed_generation=min(condition.get("observedGeneration", 0) for condition in both),
        reason=wrong.get("reason", ""),
        message=wrong.get("message", ""),
    )


def gateway(body: Body, urls: Mapping[str, str]) -> GatewayView:
    """``urls``: ``<namespace>/<name>`` -> address by the operator's settings.

    Nothing that changes with every route (attachedRoutes, resourceVersion) is kept, so that a Gateway wakes its models
    only when something about itself has changed.
    """
    metadata, status = body["metadata"], part(body, "status")
    listeners = entries(part(body, "spec"), "listeners")
    programmed = next((c for c in entries(status, "conditions") if c["type"] == "Programmed"), Body())
    done = programmed.get("status") == "True"
    hostnames = {listener["name"]: listener["hostname"] for listener in listeners if listener.get("hostname")}
    return GatewayView(
        namespace=metadata["namespace"],
        name=intern(metadata["name"]),
        url=urls.get(f"{metadata['namespace']}/{metadata['name']}") or _address(status, listeners),
        programmed=done,
        message="" if done else programmed.get("message") or "its controller has not said anything of it yet",
        hostnames=hostnames or None,
    )


class _Listener(NamedTuple):
    scheme: str
    port: int


def _address(status: Body, listeners: list[Body]) -> str | None:
    """URL of the first address; plain HTTP where a listener speaks it, since certificates may be anybody's."""
    addresses = [str(entry["value"]) for entry in entries(status, "addresses") if entry.get("value")]
    schemes = {"HTTP": "http", "HTTPS": "https"}
    usable = [
        _Listener(schemes[listener["protocol"]], listener["port"])
        for listener in listeners
        if listener.get("protocol") in schemes
    ]
    if not addresses or not usable:
        return None
    listener = min(usable, key=lambda found: found.scheme)
    host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    usual = {"http": 80, "https": 443}[listener.scheme]
    return f"{listener.scheme}://{host}" + ("" if listener.port == usual else f":{listener.port}")


def owner(metadata: Body) -> str:
    """UID of the controller."""
    return intern(next((one["uid"] for one in entries(metadata, "ownerReferences") if one.get("controller")), ""))
