"""What one reconcile of a FinancialModel may look at: plain, frozen data that the engine gathered.

Nothing here knows where it came from. ``decide`` is a function of a :class:`World` and of the time alone, so a
decision can be replayed from a recorded world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fiduciary.serving.observed import ScorerView
from fiduciary.serving.seldonviews import SeldonView

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.financialmodel import FinancialModel, FinancialModelSpec
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.api.modeldecision import ModelDecision
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.decide.history import History
    from fiduciary.manifests.plans import Environment
    from fiduciary.serving.observed import (
        ChildView,
        DeploymentView,
        GatewayView,
        ProbeView,
        RolloutView,
        RouteView,
    )


NO_SELDON = SeldonView()


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of a training Job, reduced to what explains its state to a person."""

    name: str
    phase: str  # Pending | Running | Succeeded | Failed | Unknown
    reason: str = ""  # e.g. ImagePullBackOff, Unschedulable, CreateContainerConfigError, OOMKilled, Evicted
    message: str = ""
    exit_code: int | None = None
    termination_message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """A training Job, JobSet or TrainJob that carries our label, with the pods that it made."""

    name: str
    uid: str
    resource_version: str
    key: str  # annotation fiduciary.dev/training-key: the whole trainingKey, "sha256:..."
    spec_key: str  # annotation fiduciary.dev/spec-key: the key without asOf and trigger
    attempt: int
    as_of: date
    trigger: Mapping[str, str]  # {} | {"scheduleTick": RFC 3339} | {"requestId": name of the ModelApproval}
    created_at: datetime
    owner_uid: str
    suspended: bool = False  # by Kueue; we never set it
    succeeded: bool = False
    failed: bool = False
    reason: str = ""  # of the Failed condition, e.g. BackoffLimitExceeded, PodFailurePolicy, DeadlineExceeded
    message: str = ""
    finished_at: datetime | None = None
    deleting: bool = False
    pods: tuple[PodView, ...] = ()
    kind: str = "Job"

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """A TrainingRuntime of ours: the pods of the TrainJob that has its name."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class QuotaView:
    """A ResourceQuota of the model's namespace: hard limits and what is used, as Kubernetes quantities."""

    name: str
    hard: Mapping[str, str]
    used: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReferenceView:
    """A Secret or PersistentVolumeClaim that the spec names. Only metadata was read, never its content."""

    kind: Literal["Secret", "PersistentVolumeClaim"]
    name: str
    state: Literal["Found", "Missing", "Forbidden"]  # Forbidden: the operator lacks the Role of deploy/namespace
    consumable: bool = False  # label fiduciary.dev/consumable: "true"


@dataclass(frozen=True, slots=True)
class Claim:
    """Another FinancialModel that names the same registered model on the same connection."""

    namespace: str
    name: str
    uid: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunView:
    """The MLflow run that trains (or trained) one trainingKey."""

    run_id: str
    status: str  # RUNNING | FINISHED | FAILED | KILLED
    progress: Mapping[str, Any] | None = None  # tag fiduciary.dev/progress, decoded
    result: Mapping[str, Any] | None = None  # tag fiduciary.dev/result: same JSON as the termination message


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version of the registered model in MLflow, found by its digest tag."""

    version: str
    run_id: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegistryView:
    """Answers of MLflow to the questions that :func:`fiduciary.decide.financialmodel.questions` asked."""

    reachable: bool
    reason: str = ""  # RegistryUnreachable | RegistryHostRejected | RegistryUnauthorized, when not reachable
    message: str = ""
    run: RunView | None = None
    version: VersionView | None = None
    manifest_digest: str | None = None  # sha256 of version/manifest.json as MLflow serves it now
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Questions:
    """What the engine should ask MLflow before it calls ``decide``; nothing set means: do not ask at all."""

    run_for_key: str | None = None  # progress, or the result where the termination message was lost
    version_by_digest: str | None = None  # is it registered already?
    manifest_of_run: str | None = None  # fetch version/manifest.json of this run and hash it
    aliases: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of the operator's settings: users name it, only the operator's owner says what it is."""

    name: str
    tracking_uri: str
    trainer_uri: str  # the address that pods in model namespaces use; often the same
    artifacts: str | None = None  # where mlflow-artifacts:/ really are, for servers that do not ask MLflow
    web_uri: str = ""  # the address that people's browsers use; empty: the tracking address


@dataclass(frozen=True, slots=True)
class Platform:
    """The operator's settings and the cluster's facts that decisions depend on."""

    cluster: str  # name of the cluster, part of the owner tag on MLflow versions
    trainer_image: str
    operator_version: str
    connections: Mapping[str, Connection]
    allowed_uris: tuple[str, ...]  # prefixes of storage URIs that models may read, e.g. "s3://desk/", "pvc://"
    job_ttl_seconds: int = 3600  # a Job is deleted this long after its verdict was stored
    progress_seconds: int = 15  # at most one status write for progress in this time
    resync_seconds: int = 600
    calendars: Mapping[str, Any] = field(default_factory=dict[str, Any])  # exchange -> table, see decide.calendar
    approval_policies_active: bool = False  # ValidatingAdmissionPolicies and bindings of deploy/ are all there
    approval_policies_since: datetime | None = None  # approvals older than this count for nothing
    gitops_editors: tuple[str, ...] = ()  # ServiceAccounts that apply from Git
    mlflow_egress: tuple[Mapping[str, Any], ...] = ()  # NetworkPolicy peers+ports of the registry
    kubernetes_minor: int = 37
    serving: Environment | None = None  # None: this operator serves nothing (no server image in its settings)
    hostnames: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Host names that each namespace may use (key "*": any namespace); entries may be wildcards: *.example.com."""
    probe_seconds: int = 30
    probe_protocols: tuple[Literal["rest", "grpc"], ...] = ("rest",)
    experiments: bool = False  # a Prometheus is known, so that challengers can be judged by live requests
    wave: int = 5  # serving Deployments that roll to a new runtime image at once, over all models
    notional: str = "1000000"  # capital of each arm on paper
    replay: bool = False  # experiments may follow a market replay (annotation fiduciary.dev/replay-from)
    trainer_feast_image: str = ""  # the trainer with Feast; empty: the platform has none

    def trainer(self, spec: FinancialModelSpec) -> str:
        """The platform's trainer for the data source of a spec; empty where it has none."""
        return self.trainer_image if spec.data.source.feast is None else self.trainer_feast_image


@dataclass(frozen=True, slots=True)
class World:
    """Everything that ``decide`` may look at for one FinancialModel."""

    model: FinancialModel  # metadata, spec and status as stored
    platform: Platform
    records: tuple[ModelDecision, ...] = ()  # this model's log (same uid or, after a restore, same name), by sequence
    history: History | None = None  # the same log, folded by who keeps it; None: it is folded by who looks at it
    jobs: tuple[JobView, ...] = ()
    runtimes: tuple[RuntimeView, ...] = ()
    approvals: tuple[ModelApproval, ...] = ()  # for this model, oldest first
    experiments: tuple[ModelExperiment, ...] = ()  # of this model, ended ones included
    policies: tuple[DriftPolicy, ...] = ()  # that watch this model
    quotas: tuple[QuotaView, ...] = ()
    references: tuple[ReferenceView, ...] = ()
    claims: tuple[Claim, ...] = ()
    registry: RegistryView | None = None  # None: nothing was asked
    namespace_terminating: bool = False
    # Serving: objects with label fiduciary.dev/model: <name> and fiduciary.dev/component: serving, whoever owns them.
    deployments: tuple[DeploymentView, ...] = ()
    children: tuple[ChildView, ...] = ()
    route: RouteView | None = None
    gateways: tuple[GatewayView, ...] = ()  # those that spec.serving.gateway.parentRefs name and that exist
    probes: tuple[ProbeView, ...] = ()  # fresh results for targets of this model, whatever the last decision asked
    probing_since: datetime | None = None
    """Since when this process probes what the last decision asked for this model; None: it has not begun to."""
    seldon: SeldonView = NO_SELDON
    missing_kinds: frozenset[str] = frozenset()  # e.g. {"HTTPRoute", "Gateway"}: the cluster does not know them
    scorer: ScorerView = field(default_factory=ScorerView)  # of the namespace, whoever asked for it
    rollout: RolloutView | None = None  # None: not counted (nothing is outdated)
