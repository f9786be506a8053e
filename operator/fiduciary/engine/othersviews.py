"""What is kept of objects of other serving systems: Seldon's Models, Experiments, Servers; KServe's InferenceServices.

As in :mod:`fiduciary.engine.served`, a projection keeps what a decision reads and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import replace
from sys import intern
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.engine import served
from fiduciary.engine.kinds import annotations_of, created, entries, labels_of, moment, part
from fiduciary.manifests.content import content_of
from fiduciary.manifests.inferenceservice import CONTAINER
from fiduciary.manifests.quantity import parse_quantity
from fiduciary.serving.observed import DeploymentView
from fiduciary.serving.seldonviews import ExperimentView, ModelView, Said, ServerView

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from fiduciary.clients.kube import Body

CAPABILITIES = "SELDON_SERVER_CAPABILITIES"
"""Environment variable of a Server's container ``agent``."""
_OF_THE_DEPLOYMENT = ("MinimumReplicasUnavailable", "ProgressDeadlineExceeded")


def model(body: Body) -> ModelView:
    """A Seldon Model. Its generation says nothing: Seldon does not observe it."""
    metadata, spec = body["metadata"], part(body, "spec")
    content, edited = content_of(body)
    said = dict(_conditions(body))
    replicas = spec.get("replicas", 1)
    return ModelView(
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        digest=intern(annotations_of(body).get(meta.ANNOTATION_DIGEST, "")),
        version=intern(labels_of(body).get(meta.LABEL_VERSION, "")),
        content=content,
        image="",
        created_at=created(body),
        edited=edited,
        serving_key=annotations_of(body).get(meta.ANNOTATION_SERVING_KEY, ""),
        owner_uid=served.owner(metadata),
        replicas=replicas,
        ready=replicas,
        updated=replicas,
        available=replicas,
        total=replicas,
        observed=True,
        deleting="deletionTimestamp" in metadata,
        api_version=intern(body["apiVersion"]),
        kind=intern(body["kind"]),
        said=said.get("ModelReady") or said.get("Ready"),
        requirements=tuple(spec.get("requirements") or ()),
        memory=_bytes(spec.get("memory")) or 0,
        server=spec.get("server", ""),
        edges=_edges(spec),
        deleting_at=moment(metadata.get("deletionTimestamp")),
    )


def experiment(body: Body, before: ExperimentView | None) -> ExperimentView:
    """``before``: the view of the state before, which counts how often this generation's readiness changed."""
    metadata, spec = body["metadata"], part(body, "spec")
    content, edited = content_of(body)
    conditions = tuple(_conditions(body))
    mirror = part(spec, "mirror")
    view = ExperimentView(
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        decision=served.decision_of(body),
        content=content,
        edited=edited,
        owner_uid=served.owner(metadata),
        default=spec.get("default", ""),
        candidates=tuple((one.get("name", ""), one.get("weight", 0)) for one in entries(spec, "candidates")),
        mirror=(mirror["name"], mirror["percent"]) if mirror else None,
        conditions=conditions,
        changed_at=_changed_at(before, body),
        flips=_flips(before, metadata, dict(conditions).get("ExperimentReady")),
        deleting="deletionTimestamp" in metadata,
        deleting_at=moment(metadata.get("deletionTimestamp")),
    )
    return view


def _changed_at(before: ExperimentView | None, body: Body) -> datetime | None:
    metadata = body["metadata"]
    if before is None or before.uid != metadata["uid"]:
        return created(body) if metadata.get("generation", 1) == 1 else None
    if before.generation == metadata.get("generation", 0):
        return before.changed_at
    return served.written(metadata)


def _flips(before: ExperimentView | None, metadata: Body, ready: Said | None) -> int:
    if before is None or (before.uid, before.generation) != (metadata["uid"], metadata.get("generation", 0)):
        return 0
    said = before.said("ExperimentReady")
    changed = said is not None and ready is not None and said.status != ready.status
    return before.flips + 1 if changed else before.flips


def server(body: Body) -> dict[str, Any]:
    """A Server as it says of itself; what it leaves to its ServerConfig is looked up when a world is made."""
    metadata, spec = body["metadata"], part(body, "spec")
    conditions = dict(_conditions(body))
    ready = conditions.get("Ready")
    wrong = next((said for said in conditions.values() if not said.status and (said.message or said.reason)), None)
    return {
        "name": metadata["name"],
        "config": spec.get("serverConfig", ""),
        "capabilities": tuple(spec.get("capabilities") or ()),
        "extra": tuple(spec.get("extraCapabilities") or ()),
        "memory": _memory(part(spec, "podSpec")),
        "replicas": spec.get("replicas", 1),
        "ready": ready is not None and ready.status,
        "message": "" if wrong is None else ": ".join(text for text in (wrong.reason, wrong.message) if text),
        "created": created(body),
    }


def server_config(body: Body) -> dict[str, Any]:
    """What Servers of this configuration have unless they say otherwise."""
    pod = part(part(body, "spec"), "podSpec")
    return {"name": body["metadata"]["name"], "capabilities": _capabilities(pod), "memory": _memory(pod)}


def server_view(found: dict[str, Any], configs: Iterable[dict[str, Any]]) -> ServerView:
    """A Server with what it takes from its ServerConfig, which lives in the namespace of Seldon's own operator."""
    named = next((config for config in configs if config["name"] == found["config"]), None)
    own = found["capabilities"] or (named["capabilities"] if named is not None else ())
    known = bool(found["capabilities"]) or named is not None
    return ServerView(
        name=found["name"],
        capabilities=frozenset((*own, *found["extra"])) if known else None,
        memory=found["memory"] or (named["memory"] if named is not None else None),
        replicas=found["replicas"],
        ready=found["ready"],
        message=found["message"],
        created_at=found["created"],
    )


def inference_service(body: Body) -> DeploymentView:
    """An InferenceService of mode Standard by itself; :func:`served_by` says what its Deployment shows.

    Its ``observedGeneration`` is that of the Deployment, of which every change of an autoscaler makes another one: it
    says nothing about what was asked of the InferenceService.
    """
    metadata, status = body["metadata"], part(body, "status")
    content, edited = content_of(body)
    predictor = part(part(body, "spec"), "predictor")
    containers = entries(predictor, "containers")
    minimum = predictor.get("minReplicas", 1)
    conditions = {entry["type"]: entry for entry in entries(status, "conditions")}
    able = minimum if conditions.get("PredictorReady", {}).get("status") == "True" else 0
    return DeploymentView(
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        digest=intern(annotations_of(body).get(meta.ANNOTATION_DIGEST, "")),
        version=intern(labels_of(body).get(meta.LABEL_VERSION, "")),
        content=content,
        image=intern(next((one.get("image", "") for one in containers if one["name"] == CONTAINER), "")),
        created_at=created(body),
        edited=edited,
        serving_key=annotations_of(body).get(meta.ANNOTATION_SERVING_KEY, ""),
        owner_uid=served.owner(metadata),
        replicas=minimum,
        ready=able,
        updated=able,
        available=able,
        total=able,
        observed=bool(conditions),
        failure=_refusal(conditions.get("PredictorReady", {})),
        deleting="deletionTimestamp" in metadata,
        api_version=intern(body["apiVersion"]),
        kind=intern(body["kind"]),
    )


def served_by(service: DeploymentView, made: DeploymentView | None) -> DeploymentView:
    """An InferenceService with the numbers and pods of the Deployment that KServe made of it.

    KServe copies annotations, so that the Deployment carries what it was made of; until that is what the
    InferenceService asks for now, its pods are those of something else.
    """
    if made is None:
        return replace(service, ready=0, updated=0, available=0, total=0, observed=False)
    taken_over = made.content == service.content
    return replace(
        service,
        # An autoscaler writes to the Deployment alone.
        replicas=max(service.replicas, made.replicas) if taken_over else service.replicas,
        ready=made.ready,
        updated=made.updated if taken_over else 0,
        available=made.available,
        total=made.total,
        observed=made.observed and taken_over,
        failure=made.failure or service.failure,
        overdue=made.overdue,
        pods=made.pods,
    )


def _refusal(condition: Body) -> str:
    """Why KServe makes no pods. What its Deployment says of itself is read there, and pods say more."""
    if condition.get("status") != "False" or condition.get("reason") in (*_OF_THE_DEPLOYMENT, None):
        return ""
    return f"{condition['reason']}: {condition.get('message', '')}".rstrip(": ")


def _conditions(body: Body) -> Iterable[tuple[str, Said]]:
    for entry in entries(part(body, "status"), "conditions"):
        yield (
            intern(entry["type"]),
            Said(
                status=entry.get("status") == "True",
                reason=entry.get("reason", ""),
                message=entry.get("message", ""),
                at=moment(entry.get("lastTransitionTime")),
            ),
        )


def _capabilities(pod: Body) -> tuple[str, ...]:
    for container in entries(pod, "containers"):
        for variable in entries(container, "env"):
            if variable.get("name") == CAPABILITIES:
                return tuple(text.strip() for text in variable.get("value", "").split(",") if text.strip())
    return ()


def _memory(pod: Body) -> int | None:
    """Memory of the model server of a replica: what the agent gives to Models."""
    for container in entries(pod, "containers"):
        if container.get("name") in ("mlserver", "triton"):
            return _bytes(part(part(container, "resources"), "requests").get("memory"))
    return None


def _bytes(quantity: object) -> int | None:
    if not isinstance(quantity, str | int):
        return None
    try:
        return int(parse_quantity(quantity))
    except ValueError:
        return None


def _edges(spec: Body) -> frozenset[int]:
    """Latency edges of the document that a Model of ours was made with, in milliseconds; none where it has no such."""
    documents = (entry["value"] for entry in entries(spec, "parameters") if entry.get("name") == "serving")
    try:
        found = json.loads(next(documents, "{}"))["latencyEdges"]
        return frozenset(round(1000 * float(edge)) for edge in found)
    except (ValueError, TypeError, KeyError):
        return frozenset()
