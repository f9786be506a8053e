"""The Deployment of one version: pods that fetch it by digest, load it, and end without losing a request.

It meets the restricted Pod Security Standard. The number of replicas is never in it (see ``VersionPlan``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import confinement, versionnames
from fiduciary.manifests.content import sealed
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.mounts import SECRET
from fiduciary.manifests.resources import container_resources, threads
from fiduciary.manifests.scheduling import scheduling
from fiduciary.manifests.servingdocument import SERVING_REQUESTS, latency_edges, serving_text

if TYPE_CHECKING:
    from fiduciary.api.serving import ServingSpec
    from fiduciary.manifests.plans import VersionPlan

Body = dict[str, Any]

FETCH, SERVER = "fetch", "server"
SPARE_SECONDS = 15
"""Between the end of the drain and SIGKILL: what is under way ends, the last records are sent."""
FETCH_RESOURCES: Body = {"requests": {"cpu": "50m", "memory": "128Mi"}}


def serving_key(plan: VersionPlan, serving: ServingSpec) -> str:
    """Hash of what the user says about the pods: where it is equal and the pods are not, the platform changed them."""
    asked: Body = {
        "resources": serving.resources.body(),
        "podTemplate": serving.pod_template.body(),
        "edges": latency_edges(plan.model.spec),
        "version": plan.version.version,
    }
    if serving.storage_secret_ref is not None:
        asked["storageSecret"] = serving.storage_secret_ref.name
    return hashlib.sha256(compact(asked).encode()).hexdigest()[:16]


def deployment(plan: VersionPlan, serving: ServingSpec) -> Body:
    """One version, loaded and ready to answer."""
    labels = versionnames.selector(plan.model, plan.version)
    metadata = versionnames.version_metadata(plan, _name(plan))
    metadata["annotations"][meta.ANNOTATION_SERVING_KEY] = serving_key(plan, serving)
    return sealed(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
                "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 2,
                "template": {
                    "metadata": {
                        "labels": {
                            **serving.pod_template.labels,
                            **labels,
                            meta.LABEL_VERSION: plan.version.version or "",
                        },
                        "annotations": {
                            **serving.pod_template.annotations,
                            meta.ANNOTATION_DIGEST: plan.version.digest or "",
                        },
                    },
                    "spec": pod_spec(plan, serving),
                },
            },
        }
    )


def _name(plan: VersionPlan) -> str:
    return versionnames.version_name(plan.model.metadata.name, plan.version.digest or "")


def pod_spec(plan: VersionPlan, serving: ServingSpec, server: str = SERVER) -> Body:
    """The pod of one version; ``server``: name of the container that answers."""
    environment = plan.environment
    document = [{"name": "FIDUCIARY_SERVING", "value": serving_text(plan)}]
    scratch = {"name": "tmp", "mountPath": "/tmp"}
    secret, mounted = _storage_secret(serving)
    return {
        **scheduling(serving.pod_template, versionnames.selector(plan.model, plan.version, plan.pods)),
        "serviceAccountName": versionnames.service_account_name(plan.model.metadata.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # From SIGTERM (after preStop has begun) to SIGKILL.
        "terminationGracePeriodSeconds": environment.pre_stop_seconds + environment.drain_seconds + SPARE_SECONDS,
        "securityContext": confinement.POD,
        "initContainers": [
            {
                "name": FETCH,
                "image": environment.image,
                "command": ["python", "-m", "fiduciary_server", "fetch"],
                "env": document,
                "resources": FETCH_RESOURCES,
                "securityContext": confinement.CONTAINER,
                "terminationMessagePolicy": "File",  # a reason for people, written on purpose
                "volumeMounts": [{"name": "version", "mountPath": "/version"}, scratch, *mounted],
            }
        ],
        "containers": [_server(plan, serving, server, document, scratch)],
        "volumes": [{"name": "version", "emptyDir": {"sizeLimit": "2Gi"}}, {"name": "tmp", "emptyDir": {}}, *secret],
    }


def _storage_secret(serving: ServingSpec) -> tuple[list[Body], list[Body]]:
    """Volume and mount of the store's credentials: for the container that fetches, not for the one that answers."""
    if serving.storage_secret_ref is None:
        return [], []
    # Group-readable only: the pod's fsGroup is the server's own group.
    volume = {"name": "storage", "secret": {"secretName": serving.storage_secret_ref.name, "defaultMode": 0o440}}
    return [volume], [{"name": "storage", "mountPath": SECRET, "readOnly": True}]


def _server(plan: VersionPlan, serving: ServingSpec, name: str, document: list[Body], scratch: Body) -> Body:
    resources = container_resources(serving.resources, SERVING_REQUESTS)
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}}
    return {
        "name": name,
        "image": plan.environment.image,
        "command": ["python", "-m", "fiduciary_server", "serve"],
        "env": [
            *document,
            {"name": "OMP_NUM_THREADS", "value": str(threads(resources))},
            {"name": "HOME", "value": "/tmp"},
        ],
        "ports": [
            {"name": "http", "containerPort": versionnames.REST_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": versionnames.GRPC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": versionnames.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": resources,
        "securityContext": confinement.CONTAINER,
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 300},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,  # a server under load is slow, not dead
        },
        # The gateway learns late that an endpoint goes: until then the pod answers as before.
        "lifecycle": {"preStop": {"sleep": {"seconds": plan.environment.pre_stop_seconds}}},
        "terminationMessagePolicy": "File",  # the log may hold somebody's data
        "volumeMounts": [{"name": "version", "mountPath": "/version", "readOnly": True}, scratch],
    }
