"""What stands around the pods of a version: Services, disruption budget, autoscaler, and what may talk to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import owned, versionnames
from fiduciary.manifests.content import sealed
from fiduciary.manifests.networkpolicy import DNS, OBJECT_STORAGE
from fiduciary.manifests.outcomes import RECORDS_EGRESS
from fiduciary.manifests.servingdocument import sends_to_scorer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.api.serving import Autoscaling, ScalingMetric, ServingSpec
    from fiduciary.manifests.plans import VersionPlan

Body = dict[str, Any]

DEFAULT_CPU_PERCENT = 80
RATE_METRIC = "fiduciary_requests_per_second"
"""Name under which a metrics adapter has to offer the rate of requests of a pod; see docs/serving.md."""


def service(plan: VersionPlan) -> Body:
    """Live requests of one version."""
    return _service(plan, _name(plan))


def mirror_service(plan: VersionPlan) -> Body:
    """Copies of requests: the same pods behind a name of its own, so that a gateway counts them apart."""
    return _service(plan, versionnames.mirror_name(plan.model.metadata.name, plan.version.digest or "", plan.pods))


def disruption_budget(plan: VersionPlan) -> Body | None:
    """Drains take one replica after the other. None below two: a budget over one pod would block every drain."""
    if plan.replicas < 2:
        return None
    return sealed(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": versionnames.version_metadata(plan, _name(plan)),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": versionnames.selector(plan.model, plan.version, plan.pods)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",  # a pod that is broken anyway must not hold a node
            },
        }
    )


def autoscaler(plan: VersionPlan, autoscaling: Autoscaling) -> Body:
    """The number of replicas follows the load."""
    return sealed(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": versionnames.version_metadata(plan, _name(plan)),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": _name(plan)},
                "minReplicas": autoscaling.min,
                "maxReplicas": autoscaling.max,
                "metrics": [_metric(metric) for metric in autoscaling.metrics] or [_cpu(DEFAULT_CPU_PERCENT)],
            },
        }
    )


def serving_policy(plan: VersionPlan, serving: ServingSpec) -> Body:
    """Who may talk to the pods: gateways (inference), monitoring (metrics) and the operator (probes). Pods may talk to
    DNS, MLflow, the sink of prediction records, object storage where the version is there, and to nobody else."""
    environment, namespace = plan.environment, plan.model.metadata.namespace
    parents = serving.gateway.parent_refs if serving.gateway is not None else ()
    gateways = {*environment.gateway_namespaces, *(parent.namespace or namespace for parent in parents)}
    inference = (versionnames.REST_PORT, versionnames.GRPC_PORT)
    ingress = [
        _from(gateways, inference),
        _from([environment.operator_namespace], inference),
        _from(environment.monitoring_namespaces, (versionnames.METRICS_PORT,)),
    ]
    storage = [OBJECT_STORAGE] if (plan.version.uri or "").startswith("s3://") else []
    records = RECORDS_EGRESS if sends_to_scorer(plan) else environment.records_egress
    return sealed(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": versionnames.version_metadata(plan, _name(plan)),
            "spec": {
                "podSelector": {"matchLabels": versionnames.selector(plan.model, plan.version, plan.pods)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [rule for rule in ingress if rule is not None],
                "egress": [DNS, *map(dict, environment.mlflow_egress), *storage, *map(dict, records)],
            },
        }
    )


def serving_account(plan: VersionPlan) -> Body:
    """The identity of all serving pods of the model, with no rights and no token."""
    name = versionnames.service_account_name(plan.model.metadata.name)
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": owned.metadata(plan.model, name, component=meta.SERVING, owned=plan.owned),
            "automountServiceAccountToken": False,
        }
    )


def _name(plan: VersionPlan) -> str:
    return versionnames.service_name(plan.model.metadata.name, plan.version.digest or "", plan.pods)


def _service(plan: VersionPlan, name: str) -> Body:
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": versionnames.version_metadata(plan, name),
            "spec": {
                "type": "ClusterIP",
                "selector": versionnames.selector(plan.model, plan.version, plan.pods),
                "ports": [
                    {"name": "http", "port": versionnames.REST_PORT, "targetPort": "http", "protocol": "TCP"},
                    {
                        "name": "grpc",
                        "port": versionnames.GRPC_PORT,
                        "targetPort": "grpc",
                        "protocol": "TCP",
                        "appProtocol": "kubernetes.io/h2c",
                    },
                ],
            },
        }
    )


def _metric(metric: ScalingMetric) -> Body:
    if metric.cpu_utilization is not None:
        return _cpu(metric.cpu_utilization)
    return {
        "type": "Pods",
        "pods": {
            "metric": {"name": RATE_METRIC},
            "target": {"type": "AverageValue", "averageValue": metric.requests_per_second},
        },
    }


def _cpu(percent: int) -> Body:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }


def _from(namespaces: Iterable[str], ports: tuple[int, ...]) -> Body | None:
    """A rule for the pods of whole namespaces; None for no namespace, which Kubernetes would take for every one."""
    names = sorted(set(namespaces))
    if not names:
        return None
    return {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names],
        "ports": [{"protocol": "TCP", "port": port} for port in ports],
    }
