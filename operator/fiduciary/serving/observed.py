"""What was seen of serving objects, routes and probes: plain, frozen data that the engine gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class ServingPod:
    """One pod of a version, reduced to what explains its state to a person.

    ``container``, ``reason`` and ``message`` are of the container that explains most: one that waits or ended with an
    error before one that runs, the init container ``fetch`` before the ``server``.
    """

    name: str
    phase: str  # Pending | Running | Succeeded | Failed | Unknown
    ready: bool = False
    container: str = ""  # fetch | server | "" (the pod itself: Unschedulable, Evicted)
    reason: str = ""  # ImagePullBackOff, Unschedulable, CrashLoopBackOff, Error, OOMKilled, Completed, ...
    message: str = ""
    last_reason: str = ""  # of the container's last ended run: OOMKilled hides behind CrashLoopBackOff
    exit_code: int | None = None  # of its present or last ended run
    termination_message: str = ""  # of `fetch`: {"reason": CamelCase, "message": ...}
    restarts: int = 0
    created_at: datetime | None = None
    unready_since: datetime | None = None  # when its condition Ready was last seen to change, where it is not True
    image_id: str = ""  # of the server container, as the runtime resolved it: ends in @sha256:<digest>
    deleting: bool = False
    failed: int = 0  # server containers that ended with an error and do not run again yet
    unready: bool = False  # its server runs, has started, and says that it is not ready
    lost: bool = False  # nobody knows how its server's last run ended: the node, or its runtime, went down

    @property
    def taken(self) -> bool:
        """Whether the cluster ends it: deleted, drained, preempted, or evicted. How its containers end says nothing
        then."""
        return self.deleting or self.phase == "Failed"


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """The object whose pods load one version: label ``fiduciary.dev/component: serving``.

    A Deployment, or what takes its place with another backend (``api_version``, ``kind``). ``content`` and ``edited``
    as in :class:`ChildView`; ``replicas`` is not part of the content.
    """

    name: str
    uid: str
    resource_version: str
    digest: str  # annotation fiduciary.dev/digest, "sha256:..."
    version: str  # label fiduciary.dev/version
    content: str
    image: str  # spec.template...containers[server].image: which runtime it asks for
    created_at: datetime
    edited: bool = False
    serving_key: str = ""  # annotation fiduciary.dev/serving-key
    owner_uid: str = ""
    replicas: int = 1  # spec.replicas
    ready: int = 0  # status.readyReplicas
    updated: int = 0  # status.updatedReplicas
    available: int = 0  # status.availableReplicas
    total: int = 0  # status.replicas: old and new together
    observed: bool = False  # status.observedGeneration == metadata.generation
    failure: str = ""  # message of the condition ReplicaFailure: a quota or an admission policy forbids the pods
    overdue: bool = False  # the progress deadline of its newest template is over
    deleting: bool = False
    pods: tuple[ServingPod, ...] = ()
    api_version: str = "apps/v1"
    kind: str = "Deployment"
    lent_by: str = ""  # the InferenceService that KServe made this Deployment of; empty where it is our own

    @property
    def able(self) -> int:
        """Replicas that can take requests: ready, and not on their way out. A Deployment counts a pod that is being
        deleted as ready until its readiness probe has failed."""
        staying = sum(pod.ready and not pod.deleting for pod in self.pods)
        return min(self.ready, staying)

    @property
    def rolled_out(self) -> bool:
        """Whether every pod is of the newest template and ready."""
        return self.observed and self.updated == self.ready == self.total == self.replicas


@dataclass(frozen=True, slots=True)
class ChildView:
    """Any other object of ours: Service, PodDisruptionBudget, HorizontalPodAutoscaler, NetworkPolicy, ServiceAccount.

    ``content`` and ``edited`` are what :func:`fiduciary.manifests.content.content_of` says of the live object: the
    digest of what we applied last, and whether the object still holds it.
    """

    api_version: str
    kind: str
    name: str
    uid: str
    resource_version: str
    content: str
    edited: bool = False
    owner_uid: str = ""
    digest: str = ""  # annotation fiduciary.dev/digest; empty where it belongs to no one version
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class ScorerView:
    """The outcome scorer of a namespace, as far as its objects are there."""

    deployment: DeploymentView | None = None
    others: tuple[ChildView, ...] = ()


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """What one controller says of the route at one of its parents (``status.parents[]``)."""

    namespace: str  # of the Gateway; the route's own where the parentRef names none
    name: str
    section: str | None
    controller: str
    accepted: bool
    resolved: bool
    observed_generation: int  # the smaller one of both conditions
    reason: str = ""  # of the first condition that is not True
    message: str = ""


@dataclass(frozen=True, slots=True)
class RouteView:
    """The HTTPRoute of the model. ``lead``: whose name it tells a mesh (backend Seldon)."""

    name: str
    uid: str
    resource_version: str
    generation: int
    decision: int  # annotation fiduciary.dev/decision; 0 where it has none
    content: str
    edited: bool = False
    owner_uid: str = ""
    backends: tuple[tuple[str, int], ...] = ()  # (Service, weight) of the first rule, as stored
    lead: str = ""
    parents: tuple[ParentStatus, ...] = ()
    written_at: datetime | None = None  # when we wrote it last (managedFields)
    seen_at: datetime | None = None  # since when this generation is known: who changed it does not matter
    confirmed_at: datetime | None = None  # when every parent was first seen to have taken this generation over
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class GatewayView:
    """A Gateway that a route names. Absent from the world: it does not exist."""

    namespace: str
    name: str
    url: str | None  # of the settings, else of status.addresses and the listeners; None: no address yet
    programmed: bool
    message: str = ""  # of the condition Programmed where it is not True
    hostnames: Mapping[str, str] | None = None  # listener -> its host name, where it has one


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What should be asked with a signed probe, again and again.

    Equal targets are one target: its newest result is kept. Another decision is another target, so that no answer from
    before a change of traffic counts for after it.

    Attributes:
        via: ``Route``: the address that clients use; ``Version``: the Service of one version.
        url: address of the model, ``<scheme>://<host>[:port]/v2/models/<namespace>.<name>`` (REST), or of the server
            (gRPC).
        host: Host header (``:authority``), where it differs from the address.
        model: ``<namespace>.<name>``: name of the model, and the gRPC metadata ``fiduciary-model``.
        digest: what the signature is for; ``*`` through the route.
        example_url: where the example request comes from, if not from ``url`` itself (would the challenger accept the
            champion's requests?).
        decision: the record that the route carries out.
        seconds: from one probe to the next while nothing changes.
        served: name of the model in the path, where it is not ``model``.
        headers: what else is sent; how a mesh is told whom to ask.
        draws: requests of one look: whoever wants to see a split has to ask more than once. One look is as good as its
            worst answer, and counts who answered in ``ProbeView.drawn``.
    """

    via: Literal["Route", "Version"]
    protocol: Literal["rest", "grpc"]
    url: str
    model: str
    digest: str = "*"
    host: str | None = None
    example_url: str | None = None
    decision: int = 0
    seconds: int = 30
    served: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    draws: int = 1


@dataclass(frozen=True, slots=True)
class ProbeView:
    """The newest result of one target, not older than three of its intervals (older ones are no results)."""

    target: ProbeTarget
    at: datetime
    ok: bool  # an answer of ours to a signed probe: HTTP 200 (gRPC OK) with version and digest
    status: int | None = None  # HTTP status, 404 where gRPC says the same; None: no answer (refused, timed out), gRPC
    version: str = ""
    digest: str = ""  # as the answer says; empty: the answer is not of our runtime
    message: str = ""  # what went wrong, for people: never a body that could hold somebody's data
    latency_s: float = 0.0
    since: datetime | None = None  # of the first of the equal results in a row (ok, status, digest)
    route: str = ""  # which model of the mesh answered, as its proxy says (x-seldon-route, without colons)
    drawn: tuple[tuple[str, int], ...] = ()  # digest -> answers, of all looks at this target; of targets with draws > 1


@dataclass(frozen=True, slots=True)
class RolloutView:
    """Serving Deployments of all models, by the runtime image that they ask for: what bounds a wave.

    ``rolling``: they ask for the present image and are not rolled out yet; those past their progress deadline
    (condition Progressing, ProgressDeadlineExceeded) do not count, or a few broken models would stop the wave.
    ``outdated``: they ask for another image.
    """

    rolling: int = 0
    outdated: int = 0
