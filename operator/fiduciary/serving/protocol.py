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
    from fiduciary.manifests.plans import RoutePlan, VersionPlan

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; an experiment that needs more is refused before it starts.

    Attributes:
        arms: versions that one route can split between.
        mirror: copies of live requests can go to one more version, and are counted apart.
        mirror_during_split: they can go to both arms of a split at once.
        sticky: a header of the client chooses the arm. Of none yet: admission refuses ``traffic.sticky``.
        confirms_generation: the controller says which generation of the route is in force.
        latency_histogram: per-version latencies are counted in buckets.
        grpc: the route carries gRPC as well as REST.
        gateway_needed: clients reach it through a Gateway only.
        autoscaling: metrics that the number of replicas can follow; none: it cannot.
    """

    arms: int
    mirror: bool
    mirror_during_split: bool
    sticky: bool
    confirms_generation: bool
    latency_histogram: bool
    grpc: bool
    gateway_needed: bool = True
    autoscaling: tuple[str, ...] = ("cpuUtilization", "requestsPerSecond")


@dataclass(frozen=True, slots=True)
class Address:
    """Where one version answers inside the cluster.

    Attributes:
        url: of the model, over REST.
        served: its name in the path, where that is not ``<namespace>.<name>``.
        headers: what else has to be sent.
    """

    url: str
    served: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Backend(Protocol):
    """One way to serve. Bodies carry their content (``manifests.content``), so that drift can be seen."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def workload_kind(self) -> tuple[str, str]:
        """apiVersion and kind of what :meth:`workload` makes."""
        ...

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

    def service(self, model: FinancialModel, version: VersionRef) -> str:
        """What the HTTPRoute names for the version."""
        ...

    def address(self, model: FinancialModel, version: VersionRef) -> Address:
        """One version, for probes before it has traffic."""
        ...
