"""How a model is served: backend, capacity, and the route that clients use."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, Rule, Shape
from fiduciary.api.meta import LocalRef
from fiduciary.api.pods import PodTemplate, Resources
from fiduciary.api.quantities import DnsLabel, PositiveDecimal, PositiveDuration, SubdomainName

Hostname = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Shape(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+",
        "be a host name without wildcard, for example models.example.com",
    ),
]


class ParentRef(ApiModel):
    """A Gateway that the route is attached to."""

    name: SubdomainName
    """Name of the Gateway."""
    namespace: DnsLabel | None = None
    """Namespace of the Gateway. Default: this namespace."""
    section_name: SubdomainName | None = None
    """Listener of the Gateway. Default: all that accept the route."""


class RouteTimeouts(ApiModel):
    """Time limits of the route."""

    request: PositiveDuration = "10s"
    """Longest time for one request. Default: 10s."""


class GatewayServing(ApiModel):
    """The route: an HTTPRoute to the versions of this model, at /v2/models/<namespace>.<name>."""

    parent_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=8, json_schema_extra=ATOMIC)]
    """Gateways that the route is attached to."""
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Host names under which the model answers; a platform policy says which ones a namespace may use. Absent: those
    of the Gateway's listeners."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """Time limits of the route."""


class SeldonServing(ApiModel):
    """Serving by Seldon Core v2."""

    server: DnsLabel | None = None
    """Server that loads the model. Default: chosen by Seldon among those that offer fiduciary-onnx."""
    storage_secret_ref: LocalRef | None = None
    """Secret with the rclone configuration (one key, JSON) with which Servers read the versions. Its owner labels it
    fiduciary.dev/consumable: "true". Default: the Servers' own configuration."""


class ScalingMetric(ApiModel):
    """What capacity follows: exactly one of cpuUtilization and requestsPerSecond."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.cpuUtilization) != has(self.requestsPerSecond)",
            "set exactly one of cpuUtilization and requestsPerSecond",
        ),
    )

    cpu_utilization: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] | None = None
    """Average use of the requested CPU to keep, in percent."""
    requests_per_second: PositiveDecimal | None = None
    """Average requests per second and replica to keep."""


class Autoscaling(ApiModel):
    """How many replicas there may be, and what their number follows."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("self.min <= self.max", "min must not be larger than max"),)

    min: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] = 1
    """Fewest replicas. Default: 1."""
    max: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})]
    """Most replicas."""
    metrics: Annotated[tuple[ScalingMetric, ...], Field(max_length=4, json_schema_extra=ATOMIC)] = ()
    """What the number of replicas follows. Default: 80 percent of the requested CPU."""


class ServingSpec(ApiModel):
    """How the champion and its challenger are served."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.replicas) || !has(self.autoscaling)",
            "set either replicas or autoscaling, not both",
        ),
        Rule(
            "has(self.seldon) ? self.backend == 'Seldon' : true",
            "seldon belongs to backend Seldon only",
        ),
        Rule(
            "self.backend == 'Seldon' || has(self.gateway)",
            "backends Gateway and KServe need gateway.parentRefs: the Gateway that clients reach",
        ),
        Rule(
            "self.backend != 'Seldon' || !has(self.autoscaling)",
            "backend Seldon scales by its Servers: set replicas, not autoscaling",
            field_path=".autoscaling",
        ),
        Rule(
            "self.backend != 'KServe' || !has(self.autoscaling) || !has(self.autoscaling.metrics) || "
            "(size(self.autoscaling.metrics) <= 1 && self.autoscaling.metrics.all(m, has(m.cpuUtilization)))",
            "with backend KServe the number of replicas follows cpuUtilization and nothing else",
            field_path=".autoscaling",
        ),
        Rule(
            "self.runtime == 'Fiduciary' || self.backend != 'Seldon'",
            "runtime MLflow is available with backend Gateway and KServe",
        ),
        Rule(
            "self.backend != 'Seldon' || !has(self.storageSecretRef)",
            "Seldon's Servers read the versions themselves: name an rclone configuration in seldon.storageSecretRef",
            field_path=".storageSecretRef",
        ),
    )

    backend: Literal["Gateway", "Seldon", "KServe"] = "Gateway"
    """What serves: Gateway (Deployments behind the Gateway API), Seldon (Seldon Core v2) or KServe. Default:
    Gateway."""
    runtime: Literal["Fiduciary", "MLflow"] = "Fiduciary"
    """What runs the model: Fiduciary (ONNX Runtime with the metrics that experiments and drift need), or MLflow (any
    pyfunc model in the stock MLflow server, for External versions). Default: Fiduciary."""
    replicas: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] | None = None
    """Number of replicas. Default: 1, or what autoscaling decides."""
    autoscaling: Autoscaling | None = None
    """How many replicas there may be, and what their number follows."""
    resources: Resources = Field(default_factory=Resources)  # a default instance would be copied for each object
    """CPU and memory of one replica."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """Scheduling and labels of the serving pods."""
    keep_versions: Annotated[int, Field(ge=1, le=20, json_schema_extra={"format": "int32"})] = 3
    """Versions that stay loaded, the champion included, so that a rollback does not wait for pods. Default: 3."""
    storage_secret_ref: LocalRef | None = None
    """Secret with the credentials of the store that versions are fetched from (AWS_ACCESS_KEY_ID and the like for s3://,
    MLFLOW_TRACKING_TOKEN for MLflow), mounted into the container that fetches and into no other. Its owner labels it
    fiduciary.dev/consumable: "true". Default: none, as MLflow's artifact proxy needs."""
    gateway: GatewayServing | None = None
    """The route that clients use."""
    seldon: SeldonServing | None = None
    """Settings of backend Seldon."""
