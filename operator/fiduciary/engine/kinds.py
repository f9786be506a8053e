"""The kinds that the engine watches: where they live, and what of them is kept.

A projection keeps what some decision reads and nothing else: at ten thousand models the mirror is most of the
operator's memory. Our own kinds are kept as trimmed bodies and parsed when a reconcile first asks for them.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from sys import intern
from typing import TYPE_CHECKING, NamedTuple, cast

from fiduciary.api import meta
from fiduciary.clients.kube import Body, Resource
from fiduciary.decide.world import JobView, PodView, QuotaView, RuntimeView
from fiduciary.manifests.engines import API_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

FINANCIALMODEL = Resource(meta.API_VERSION, "FinancialModel", "financialmodels")
MODELEXPERIMENT = Resource(meta.API_VERSION, "ModelExperiment", "modelexperiments")
DRIFTPOLICY = Resource(meta.API_VERSION, "DriftPolicy", "driftpolicies")
MODELAPPROVAL = Resource(meta.API_VERSION, "ModelApproval", "modelapprovals")
MODELDECISION = Resource(meta.API_VERSION, "ModelDecision", "modeldecisions")
JOB = Resource("batch/v1", "Job", "jobs")
JOBSET = Resource(API_VERSIONS["JobSet"], "JobSet", "jobsets")
TRAINJOB = Resource(API_VERSIONS["TrainJob"], "TrainJob", "trainjobs")
TRAININGRUNTIME = Resource(API_VERSIONS["TrainingRuntime"], "TrainingRuntime", "trainingruntimes")
POD = Resource("v1", "Pod", "pods")
RESOURCEQUOTA = Resource("v1", "ResourceQuota", "resourcequotas")
POLICY = Resource("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False)
BINDING = Resource(
    "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False
)

DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
SERVICE = Resource("v1", "Service", "services")
BUDGET = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
AUTOSCALER = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
NETWORKPOLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICEACCOUNT = Resource("v1", "ServiceAccount", "serviceaccounts")
HTTPROUTE = Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
GATEWAY = Resource("gateway.networking.k8s.io/v1", "Gateway", "gateways")
MODEL = Resource("mlops.seldon.io/v1alpha1", "Model", "models")
EXPERIMENT = Resource("mlops.seldon.io/v1alpha1", "Experiment", "experiments")
SERVER = Resource("mlops.seldon.io/v1alpha1", "Server", "servers")
SERVERCONFIG = Resource("mlops.seldon.io/v1alpha1", "ServerConfig", "serverconfigs")
INFERENCESERVICE = Resource("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")

# Written or read, but not watched.
CONFIGMAP = Resource("v1", "ConfigMap", "configmaps")
NAMESPACE = Resource("v1", "Namespace", "namespaces", False)
SECRET = Resource("v1", "Secret", "secrets")
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")

WATCHED = (
    FINANCIALMODEL,
    MODELEXPERIMENT,
    DRIFTPOLICY,
    MODELAPPROVAL,
    MODELDECISION,
    JOB,
    JOBSET,
    TRAINJOB,
    TRAININGRUNTIME,
    POD,
    RESOURCEQUOTA,
    POLICY,
    BINDING,
    DEPLOYMENT,
    SERVICE,
    BUDGET,
    AUTOSCALER,
    NETWORKPOLICY,
    SERVICEACCOUNT,
    HTTPROUTE,
    GATEWAY,
    MODEL,
    EXPERIMENT,
    SERVER,
    SERVERCONFIG,
    INFERENCESERVICE,
)

#: Kinds that a cluster need not have: the operator works without them and notices when they come or go.
OPTIONAL = frozenset(
    {
        JOBSET,
        TRAINJOB,
        TRAININGRUNTIME,
        HTTPROUTE,
        GATEWAY,
        MODEL,
        EXPERIMENT,
        SERVER,
        SERVERCONFIG,
        INFERENCESERVICE,
    }
)

#: What runs a training.
TRAININGS = (JOB, JOBSET, TRAINJOB)

#: What loads one version, by backend.
WORKLOADS = (DEPLOYMENT, MODEL, INFERENCESERVICE)

#: What belongs to one version, apart from its Deployment.
COMPANIONS = (SERVICE, BUDGET, AUTOSCALER, NETWORKPOLICY, SERVICEACCOUNT)

#: Children that a decision may name, by (apiVersion, kind).
CHILDREN = {
    (r.api_version, r.kind): r
    for r in (
        *TRAININGS,
        TRAININGRUNTIME,
        CONFIGMAP,
        CLAIM,
        *WORKLOADS,
        *COMPANIONS,
        HTTPROUTE,
        EXPERIMENT,
        MODELEXPERIMENT,
    )
}

MANAGED: Mapping[str, str] = {meta.LABEL_MANAGED_BY: meta.MANAGED_BY}
SERVES: Mapping[str, str] = {**MANAGED, meta.LABEL_COMPONENT: meta.SERVING}
TRAINS: Mapping[str, str] = {**MANAGED, meta.LABEL_COMPONENT: meta.TRAINING}
SCORES: Mapping[str, str] = {**MANAGED, meta.LABEL_COMPONENT: meta.OUTCOMES}
#: InferenceServices, and what KServe makes of them: it copies their labels.
LENT: Mapping[str, str] = {**MANAGED, meta.LABEL_COMPONENT: meta.KSERVE}
PART = {"app.kubernetes.io/part-of": "fiduciary"}

#: Only our own objects are sent to us, and only the policies that say they are ours. Gateways are the platform's.
LABELS: Mapping[Resource, tuple[Mapping[str, str], ...]] = {
    JOB: (MANAGED,),
    POD: (MANAGED,),
    **dict.fromkeys((JOBSET, TRAINJOB, TRAININGRUNTIME), (TRAINS,)),
    POLICY: (PART,),
    BINDING: (PART,),
    **dict.fromkeys((HTTPROUTE, MODEL, EXPERIMENT), (SERVES,)),
    INFERENCESERVICE: (LENT,),
    DEPLOYMENT: (SERVES, SCORES, LENT),
    **dict.fromkeys(COMPANIONS, (SERVES, SCORES)),
}
"""What an object has to carry to be sent to us; where there are several, any of them."""


def _selector(alternatives: tuple[Mapping[str, str], ...]) -> str:
    """Equal names with the values of all alternatives, which differ in one name at most."""
    values = {name: sorted({labels[name] for labels in alternatives}) for name in alternatives[0]}
    return ",".join(f"{name} in ({','.join(v)})" if len(v) > 1 else f"{name}={v[0]}" for name, v in values.items())


#: The same as the API server takes it.
SELECTORS = {resource: _selector(alternatives) for resource, alternatives in LABELS.items()}

COMPLETE = ("Complete", "Completed")
"""Condition of a Job or TrainJob, and of a JobSet, that succeeded."""

_BULKY = "kubectl.kubernetes.io/last-applied-configuration"


def part(body: Body, key: str) -> Body:
    """A section of an object; empty where it is absent or null."""
    value: object = body.get(key)
    return cast("Body", value) if isinstance(value, dict) else {}


def entries(body: Body, key: str) -> list[Body]:
    """A list of an object; empty where it is absent or null."""
    value: object = body.get(key)
    return cast("list[Body]", value) if isinstance(value, list) else []


def annotations_of(body: Body) -> Mapping[str, str]:
    return part(part(body, "metadata"), "annotations")


def labels_of(body: Body) -> Mapping[str, str]:
    return part(part(body, "metadata"), "labels")


def trimmed(body: Body) -> Body:
    """An object of ours without the bookkeeping of field managers, which often is larger than the object."""
    metadata: Body = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    if _BULKY in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _BULKY}
    kept = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body.get("spec", {})}
    if "status" in body:
        kept["status"] = body["status"]
    return kept


class Said(NamedTuple):
    """What an object of ours says of itself: the labels of a metric."""

    namespace: str
    phase: str
    stalled: str
    reason: str


def said(body: Body) -> Said:
    """``reason`` is that of Stalled where a person has to act, else of Ready.

    Before the first look at the object it and ``phase`` are empty, and ``stalled`` is Unknown.
    """
    status = part(body, "status")
    found = {condition["type"]: condition for condition in entries(status, "conditions")}
    stalled = found.get("Stalled", {}).get("status", "Unknown")
    why = found.get("Stalled" if stalled == "True" else "Ready", {})
    return Said(
        intern(body["metadata"].get("namespace", "")),
        intern(status.get("phase") or ""),
        intern(stalled),
        intern(why.get("reason", "")),
    )


def watched(resource: Resource, body: Body) -> bool:
    """Whether the watch of its kind tells of this object."""
    carried = labels_of(body).items()
    return any(labels.items() <= carried for labels in LABELS.get(resource, ({},)))


def moment(text: str | None) -> datetime | None:
    """RFC 3339 as Kubernetes writes it."""
    return None if not text else datetime.fromisoformat(text)


def job(body: Body) -> JobView | None:
    """A training Job, JobSet or TrainJob; None for one that carries our label but not our annotations (somebody else's,
    by mistake)."""
    metadata, annotations = body["metadata"], annotations_of(body)
    try:
        as_of = date.fromisoformat(annotations[meta.ANNOTATION_AS_OF])
        key, spec_key = annotations[meta.ANNOTATION_TRAINING_KEY], annotations[meta.ANNOTATION_SPEC_KEY]
        trigger: object = json.loads(annotations.get(meta.ANNOTATION_TRIGGER) or "{}")
        attempt = int(str(metadata["name"]).rpartition("-")[2])
    except (KeyError, ValueError):
        return None
    if not isinstance(trigger, dict):
        return None
    ended = job_end(body)
    owners = [owner for owner in entries(metadata, "ownerReferences") if owner.get("controller")]
    return JobView(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        key=key,
        spec_key=spec_key,
        attempt=attempt,
        as_of=as_of,
        trigger=cast("dict[str, str]", trigger),
        created_at=created(body),
        owner_uid=owners[0]["uid"] if owners else "",
        suspended=bool(part(body, "spec").get("suspend", False)),
        succeeded=ended.get("type") in COMPLETE,
        failed=ended.get("type") == "Failed",
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        finished_at=moment(ended.get("lastTransitionTime")),
        deleting="deletionTimestamp" in metadata,
        kind=body["kind"],
    )


def runtime(body: Body) -> RuntimeView:
    return RuntimeView(body["metadata"]["name"], body["metadata"]["uid"])


def job_end(body: Body) -> Body:
    """The condition with which a Job, JobSet or TrainJob ended; empty while it has not."""
    ended: Body = {}
    for condition in entries(part(body, "status"), "conditions"):
        if condition["type"] in (*COMPLETE, "Failed") and condition["status"] == "True":
            ended = condition
    return ended


def pod(body: Body) -> PodView:
    """A pod of a training Job, with the one reason that explains its state best."""
    status = part(body, "status")
    waiting: Body = {}
    ended: Body = {}
    started: str | None = None
    for container in entries(status, "initContainerStatuses") + entries(status, "containerStatuses"):
        state = part(container, "state")
        waiting = part(state, "waiting") or waiting
        ended = part(state, "terminated") or part(part(container, "lastState"), "terminated") or ended
        started = (part(state, "running") or part(state, "terminated")).get("startedAt") or started
    unscheduled: Body = {}
    for condition in entries(status, "conditions"):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            unscheduled = condition
    # A failed container says more than the pod, the pod (Evicted) more than what it waits for.
    failed = ended if ended.get("exitCode") else {}
    telling = [told for told in (failed, status, waiting, unscheduled) if told.get("reason")]
    told = telling[0] if telling else {}
    return PodView(
        name=body["metadata"]["name"],
        phase=status.get("phase", "Unknown"),
        reason=told.get("reason", ""),
        message="" if told is ended else told.get("message", ""),
        exit_code=ended.get("exitCode"),
        termination_message=ended.get("message", ""),
        started_at=moment(started),
        finished_at=moment(ended.get("finishedAt")),
    )


def job_of_pod(body: Body) -> str:
    """Name of the Job that made this pod, or of the JobSet that made the Job, which a TrainJob shares; or empty."""
    labels, names = labels_of(body), ("jobset.sigs.k8s.io/jobset-name", "batch.kubernetes.io/job-name", "job-name")
    return next((labels[name] for name in names if labels.get(name)), "")


def quota(body: Body) -> QuotaView:
    status = part(body, "status")
    hard = part(status, "hard") or part(part(body, "spec"), "hard")
    return QuotaView(name=body["metadata"]["name"], hard=hard, used=part(status, "used"))


def labelled_model(body: Body) -> str | None:
    """The FinancialModel that a child names in its label."""
    return labels_of(body).get(meta.LABEL_MODEL)


def referenced_model(body: Body) -> str | None:
    """The FinancialModel that one of our kinds names in ``spec.modelRef``."""
    return part(part(body, "spec"), "modelRef").get("name")


def created(body: Body) -> datetime:
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])
