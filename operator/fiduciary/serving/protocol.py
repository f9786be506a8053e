"""The protocol of serving backends: plans in, bodies of Kubernetes objects out, and what each backend cannot do.

A version is immutable and has objects of its own; the route is the one object that changes. The protocol is pure, so
that ``decide`` can say in one breath what is decided and what then has to exist; only the engine writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.versions import VersionRef

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; an experiment that needs more is refused before it starts.

    Attributes:
        arms: versions that one route can split between.
        mirror: copies of live requests can go to one more version, and are counted apart.
        mirror_during_split: they can go to both arms of a split at once.
        sticky: a header of the client can choose the arm.
        confirms_generation: the controller says which generation of the route is in force.
        latency_histogram: per-version latencies are counted in buckets.
        grpc: the route carries gRPC as well as REST.
    """

    arms: int
    mirror: bool
    mirror_during_split: bool
    sticky: bool
    confirms_generation: bool
    latency_histogram: bool
    grpc: bool


@dataclass(frozen=True, slots=True)
class Environment:
    """The platform's part of serving objects: the same for every model."""

    cluster: str
    image: str
    operator_namespace: str
    gateway_namespaces: tuple[str, ...]
    monitoring_namespaces: tuple[str, ...]
    mlflow_egress: tuple[Mapping[str, Any], ...] = ()
    records_url: str | None = None
    records_egress: tuple[Mapping[str, Any], ...] = ()
    probe_key: str | None = None  # base64 raw Ed25519 public key
    pre_stop_seconds: int = 5  # longer than the gateway takes to notice that an endpoint is going
    drain_seconds: int = 20  # how long the server finishes what it has begun


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """One version that has to be loaded.

    Attributes:
        image: its runtime; may lag behind the platform's while waves roll.
        replicas: how many at least; decides about the PodDisruptionBudget. Never part of a body: the number of pods is
            changed by itself (``Scale``), so that an autoscaler can take it over.
        autoscaled: a HorizontalPodAutoscaler has the number.
        tracking_uri: MLflow as serving pods reach it.
        owned: False takes the owner reference off, for a resource that goes and leaves its serving behind.
    """

    model: FinancialModel
    version: VersionRef
    image: str
    replicas: int
    autoscaled: bool
    tracking_uri: str
    environment: Environment
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Arm:
    """A version with its share of live requests; the shares of a route add up to 100, or are all 0 (nobody answers)."""

    version: VersionRef
    weight: int


@dataclass(frozen=True, slots=True)
class Sticky:
    """Buckets of the header ``fiduciary-bucket`` that go to ``version``; everything else goes to the other arm."""

    version: VersionRef
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Copies of live requests, in percent."""

    version: VersionRef
    percent: int


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What the route has to be from record ``decision`` on."""

    model: FinancialModel
    decision: int
    arms: tuple[Arm, ...]
    mirrored: tuple[Mirrored, ...] = ()
    sticky: Sticky | None = None
    owned: bool = True


class Backend(Protocol):
    """One way to serve. Bodies carry their content (``manifests.content``), so that drift can be seen."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """Kinds that the cluster must know (``HTTPRoute``), each with how to install it."""
        ...

    def workload(self, plan: VersionPlan) -> Body:
        """The object whose pods load the version."""
        ...

    def companions(self, plan: VersionPlan) -> tuple[Body, ...]:
        """Everything else that the version needs; goes and comes with it."""
        ...

    def shared(self, plan: VersionPlan) -> tuple[Body, ...]:
        """What all versions of the model share; first, because pods need it."""
        ...

    def route(self, plan: RoutePlan) -> Body:
        """The one object that decides who answers clients."""
        ...

    def address(self, plan_model: FinancialModel, version: VersionRef) -> str:
        """URL of one version inside the cluster, for probes before it has traffic."""
        ...
