"""KServe's InferenceService of one version: the same pod as a Deployment's, under KServe's controller.

Mode Standard, a predictor with a container of ours: nothing of KServe's own (storage initializer, ServingRuntime,
Ingress) stands between a version and its digest. KServe copies the labels of an InferenceService to all that it makes,
so the component label is one that our watches of Services and Deployments do not select: those are KServe's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import versionnames
from fiduciary.manifests.companions import DEFAULT_CPU_PERCENT
from fiduciary.manifests.content import sealed
from fiduciary.manifests.deployment import pod_spec, serving_key
from fiduciary.manifests.quantity import parse_quantity

if TYPE_CHECKING:
    from fiduciary.api.serving import ServingSpec
    from fiduciary.manifests.plans import VersionPlan

Body = dict[str, Any]

API_VERSION = "serving.kserve.io/v1beta1"
CONTAINER = "kserve-container"
"""KServe treats the container of this name as the model server."""
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
VISIBILITY = "networking.kserve.io/visibility"
SHIPPED = {"cpu": "1", "memory": "2Gi"}
"""Limits that KServe's own ConfigMap gives to a container without."""


def inference_service(plan: VersionPlan, serving: ServingSpec) -> Body:
    """One version. The number of replicas is applied with it, unlike a Deployment's: in KServe's smaller CRD a spec is
    one value, and two managers of it would take away each other's. A fixed number is no part of the content: KServe
    copies annotations to the pods, which would all be made anew for another number."""
    own = versionnames.selector(plan.model, plan.version, meta.KSERVE)
    metadata = versionnames.version_metadata(plan, versionnames.version_name(plan.model.metadata.name, _digest(plan)))
    # Cluster-local: KServe makes no Ingress, the route is ours.
    metadata["labels"] |= {meta.LABEL_COMPONENT: meta.KSERVE, VISIBILITY: "cluster-local"}
    metadata["annotations"] |= {
        meta.ANNOTATION_SERVING_KEY: serving_key(plan, serving),
        MODE: "Standard",
        AUTOSCALER: "hpa" if plan.autoscaled else "none",
    }
    pod = pod_spec(plan, serving, CONTAINER)
    server = pod["containers"][0]
    predictor: Body = {
        **pod,
        "containers": [{**server, "resources": stated(server["resources"])}],
        "labels": {**serving.pod_template.labels, **own, meta.LABEL_VERSION: plan.version.version or ""},
        "annotations": {**serving.pod_template.annotations, meta.ANNOTATION_DIGEST: _digest(plan)},
        "deploymentStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
        },
    }
    fixed: Body = {"minReplicas": plan.replicas, "maxReplicas": plan.replicas}
    autoscaling = serving.autoscaling
    if plan.autoscaled and autoscaling is not None:
        percents = [metric.cpu_utilization for metric in autoscaling.metrics if metric.cpu_utilization is not None]
        predictor |= {
            "minReplicas": autoscaling.min,
            "maxReplicas": autoscaling.max,
            "scaleMetric": "cpu",
            "scaleTarget": percents[0] if percents else DEFAULT_CPU_PERCENT,
        }
        fixed = {}
    body: Body = {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }
    return {**sealed(body), "spec": {"predictor": {**predictor, **fixed}}}


def stated(resources: Body) -> Body:
    """Requests and limits of CPU and memory, all of them: KServe fills in what is missing by numbers of its own
    (``inferenceservice-config``: 1 CPU and 2Gi as shipped), and a request above that limit is a pod that nobody can
    make. Where the user has set no limit, it is what KServe ships, or the request if that is more."""
    requests, limits = dict(resources.get("requests", {})), dict(resources.get("limits", {}))
    for name, shipped in SHIPPED.items():
        if name not in requests:
            requests[name] = limits[name]  # as Kubernetes does
        limits.setdefault(name, max(requests[name], shipped, key=parse_quantity))
    return {**resources, "requests": requests, "limits": limits}


def _digest(plan: VersionPlan) -> str:
    return plan.version.digest or ""
