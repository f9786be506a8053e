"""What serving objects are made from: one version that has to be loaded, one route that has to be in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.versions import VersionRef


@dataclass(frozen=True, slots=True)
class Postgresql:
    """Where scorers keep their ledgers instead of a volume. ``url`` holds ``{namespace}``: each has its own database.

    ``secret``: name of a Secret of the model's namespace, whose field ``password`` is mounted.
    """

    url: str
    secret: str
    egress: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Scoring:
    """The platform's part of every namespace's outcome scorer.

    Attributes:
        issuer, keys_url: of the ServiceAccount tokens that it believes.
        operator: subject that may define live ledgers.
        writers: subjects that may send outcomes, besides the ServiceAccount ``outcome-writer`` of the namespace.
        writer_namespaces: whose pods may reach it, where they are labelled as writers.
    """

    image: str
    issuer: str
    operator: str
    operator_namespace: str
    monitoring_namespaces: tuple[str, ...] = ()
    keys_url: str = "https://kubernetes.default.svc/openid/v1/jwks"
    writers: tuple[str, ...] = ()
    writer_namespaces: tuple[str, ...] = ()
    storage_class: str | None = None
    storage_size: str = "5Gi"
    postgresql: Postgresql | None = None
    retention_days: int = 400


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
    scoring: Scoring | None = None  # None: no scorer is made
    probe_key: str | None = None  # base64 raw Ed25519 public key
    pre_stop_seconds: int = 5  # longer than the gateway takes to notice that an endpoint is going
    drain_seconds: int = 20  # how long the server finishes what it has begun


@dataclass(frozen=True, slots=True)
class VersionPlan:
    """One version that has to be loaded.

    Attributes:
        replicas: how many at least; decides about the PodDisruptionBudget. Never part of a body: the number of pods is
            changed by itself (``Scale``), so that an autoscaler can take it over.
        autoscaled: a HorizontalPodAutoscaler has the number.
        tracking_uri: MLflow as serving pods reach it.
        owned: False takes the owner reference off, for a resource that goes and leaves its serving behind.
        pods: component label of its pods; those of KServe carry another one than a Deployment's.
    """

    model: FinancialModel
    version: VersionRef
    replicas: int
    autoscaled: bool
    tracking_uri: str
    environment: Environment
    owned: bool = True
    pods: str = meta.SERVING


@dataclass(frozen=True, slots=True)
class Arm:
    """A version with its share of live requests; the shares of a route add up to 100, or are all 0 (nobody answers).

    A version is listed with share 0 before it gets any: proxies then know its pods when the shares change. A backend
    that is new to the route loses requests until they do (Contour and Envoy: 2 to 5 answers 503 at 200 requests/s).
    """

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
    """What the route has to be from record ``decision`` on.

    ``lead``: whose name requests carry, on a mesh. ``also``: (Service, port) that gateways should know without sending
    anything there; without a port: that of each rule.
    """

    model: FinancialModel
    decision: int
    arms: tuple[Arm, ...]
    mirrored: tuple[Mirrored, ...] = ()
    sticky: Sticky | None = None
    owned: bool = True
    lead: str | None = None
    also: tuple[tuple[str, int | None], ...] = ()
    pods: str = meta.SERVING
