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


def inference_service(plan: VersionPlan, serving: ServingSpec) -> Body:
    """One version. The number of replicas is part of it, unlike a Deployment's: in KServe's smaller CRD the spec is one
    value, and two managers of it would take away each other's."""
    own = versionnames.selector(plan.model, plan.version, meta.KSERVE)
    metadata = versionnames.version_metadata(plan, versionnames.version_name(plan.model.metadata.name, _digest(plan)))
    # Cluster-local: KServe makes no Ingress, the route is ours.
    metadata["labels"] |= {meta.LABEL_COMPONENT: meta.KSERVE, VISIBILITY: "cluster-local"}
    metadata["annotations"] |= {
        meta.ANNOTATION_SERVING_KEY: serving_key(plan, serving),
        MODE: "Standard",
        AUTOSCALER: "hpa" if plan.autoscaled else "none",
    }
    predictor: Body = {
        **pod_spec(plan, serving, CONTAINER),
        "labels": {**serving.pod_template.labels, **own, meta.LABEL_VERSION: plan.version.version or ""},
        "annotations": {**serving.pod_template.annotations, meta.ANNOTATION_DIGEST: _digest(plan)},
        "deploymentStrategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
        },
    }
    predictor |= {"minReplicas": plan.replicas, "maxReplicas": plan.replicas}
    autoscaling = serving.autoscaling
    if plan.autoscaled and autoscaling is not None:
        percents = [metric.cpu_utilization for metric in autoscaling.metrics if metric.cpu_utilization is not None]
        predictor |= {
            "minReplicas": autoscaling.min,
            "maxReplicas": autoscaling.max,
            "scaleMetric": "cpu",
            "scaleTarget": percents[0] if percents else DEFAULT_CPU_PERCENT,
        }
    return sealed(
        {
            "apiVersion": API_VERSION,
            "kind": "InferenceService",
            "metadata": metadata,
            "spec": {"predictor": predictor},
        }
    )


def _digest(plan: VersionPlan) -> str:
    return plan.version.digest or ""
