"""The mirror as a whole: one store for each watched kind, and which keys an event about one of them concerns."""

from __future__ import annotations

from datetime import UTC, datetime
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fiduciary.api import meta
from fiduciary.api.financialmodel import FinancialModel
from fiduciary.api.modelapproval import ModelApproval
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.decide.world import Claim, JobView, PodView, QuotaView, RuntimeView
from fiduciary.engine import kinds, othersviews, served
from fiduciary.engine.comparisons import comparison_job
from fiduciary.engine.decisionlog import Logs
from fiduciary.engine.mirror import Name, Store, name_of
from fiduciary.engine.rollout import Rollout
from fiduciary.manifests.outcomes import scored

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.clients.kube import Body, Resource
    from fiduciary.decide.experiment.world import ComparisonJob
    from fiduciary.serving.observed import ChildView, DeploymentView, GatewayView, RouteView, ServingPod
    from fiduciary.serving.seldonviews import ExperimentView, ModelView, ServerView


#: Beside its model, an experiment's world holds the log, acts of people, the pods of both versions and its own Jobs.
LOOKED_AT_BY_EXPERIMENTS = frozenset(
    resource.kind for resource in (kinds.MODELDECISION, kinds.MODELAPPROVAL, kinds.DEPLOYMENT, kinds.POD, kinds.JOB)
)


class Key(NamedTuple):
    """What is reconciled: one object of one of our kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Scorer(NamedTuple):
    """Parent of the objects that make up a namespace's outcome scorer."""

    namespace: str


class Stores:
    """One store a watched kind. ``gateway_urls``: address of a Gateway (``<namespace>/<name>``) by the settings."""

    def __init__(
        self,
        gateway_urls: Mapping[str, str] | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        urls = gateway_urls or {}
        self._now = now
        self.models: Store[FinancialModel] = Store(
            kinds.FINANCIALMODEL,
            FinancialModel.model_validate,
            keep=kinds.trimmed,
            index=_wanted,
            parent=_namespace,
            says=kinds.said,
        )
        self.experiments: Store[ModelExperiment] = Store(
            kinds.MODELEXPERIMENT, _experiment, keep=kinds.trimmed, parent=_model_in_spec, index=_open, says=kinds.said
        )
        self.policies: Store[DriftPolicy] = Store(
            kinds.DRIFTPOLICY, _policy, keep=kinds.trimmed, parent=_model_in_spec, says=kinds.said
        )
        self.approvals: Store[ModelApproval] = Store(
            kinds.MODELAPPROVAL, ModelApproval.model_validate, keep=kinds.trimmed, parent=_model_in_spec
        )
        self.records: Store[ModelDecision] = Store(
            kinds.MODELDECISION, ModelDecision.model_validate, keep=kinds.trimmed, parent=_model_in_spec
        )
        self.logs = Logs(self.records)
        self.jobs: Store[JobView | ComparisonJob | None] = Store(kinds.JOB, _job, parent=_model_in_label)
        self.jobsets: Store[JobView | None] = Store(kinds.JOBSET, kinds.job, parent=_model_in_label)
        self.trainjobs: Store[JobView | None] = Store(kinds.TRAINJOB, kinds.job, parent=_model_in_label)
        self.runtimes: Store[RuntimeView] = Store(kinds.TRAININGRUNTIME, kinds.runtime, parent=_model_in_label)
        self.trainings: tuple[Store[Any], ...] = (self.jobs, self.jobsets, self.trainjobs)
        self.pods: Store[PodView | ServingPod] = Store(kinds.POD, _pod, parent=_model_in_label, index=_maker)
        self.quotas: Store[QuotaView] = Store(kinds.RESOURCEQUOTA, kinds.quota, parent=_namespace)
        self.guards: Store[Body] = Store(kinds.POLICY, _guard)
        self.bindings: Store[Body] = Store(kinds.BINDING, _guard)
        self.rollout = Rollout()
        self.deployments: Store[DeploymentView] = Store(
            kinds.DEPLOYMENT, served.deployment, parent=_belongs_to, tally=self.rollout.count
        )
        self.companions: tuple[Store[ChildView], ...] = tuple(
            Store(resource, served.child, parent=_belongs_to) for resource in kinds.COMPANIONS
        )
        self.routes: Store[RouteView] = Store(kinds.HTTPROUTE, self._route, parent=_model_in_label)
        self.seldon_models: Store[ModelView] = Store(kinds.MODEL, othersviews.model, parent=_model_in_label)
        self.inference_services: Store[DeploymentView] = Store(
            kinds.INFERENCESERVICE, othersviews.inference_service, parent=_model_in_label
        )
        self.workloads: tuple[Store[Any], ...] = (self.deployments, self.seldon_models, self.inference_services)
        self.splits: Store[ExperimentView] = Store(kinds.EXPERIMENT, self._split, parent=_model_in_label)
        self.servers: Store[Body] = Store(kinds.SERVER, othersviews.server, parent=_namespace)
        self.server_configs: Store[Body] = Store(kinds.SERVERCONFIG, othersviews.server_config)
        self.gateways: Store[GatewayView] = Store(kinds.GATEWAY, lambda body: served.gateway(body, urls))
        #: Optional kinds that the cluster does not know, or that are not listed yet.
        self.missing: frozenset[str] = frozenset()
        self.by_kind: dict[str, Store[Any]] = {
            store.resource.kind: store
            for store in (
                self.models,
                self.experiments,
                self.policies,
                self.approvals,
                self.records,
                *self.trainings,
                self.runtimes,
                self.pods,
                self.quotas,
                self.guards,
                self.bindings,
                self.deployments,
                *self.companions,
                self.routes,
                self.gateways,
                self.seldon_models,
                self.inference_services,
                self.splits,
                self.servers,
                self.server_configs,
            )
        }

    def _route(self, body: Body) -> RouteView:
        return served.route(body, self.routes.get(name_of(body["metadata"])), self._now())

    def seldon_servers(self, namespace: str) -> tuple[ServerView, ...]:
        """Seldon's Servers of a namespace with what they take from their ServerConfigs."""
        configs = list(self.server_configs.values())
        found = (othersviews.server_view(server, configs) for server in self.servers.of(namespace))
        return tuple(sorted(found, key=lambda server: server.name))

    def _split(self, body: Body) -> ExperimentView:
        return othersviews.experiment(body, self.splits.get(name_of(body["metadata"])))

    @property
    def synced(self) -> bool:
        return not self.unsynced()

    def unsynced(self) -> list[str]:
        """Kinds that were not yet listed completely; those that the cluster does not know need not be."""
        return [kind for kind, store in self.by_kind.items() if not store.synced and kind not in self.missing]

    def names_optional(self, name: Name) -> bool:
        """Whether the model asks for a kind that a cluster need not have: for its route, its pods, its training."""
        return len(self.models.index_of(name)) > 1

    def concerned(self, resource: Resource, name: Name, parent: Hashable, index: tuple[Hashable, ...]) -> Iterator[Key]:
        """Keys whose world holds this object; ``parent`` and ``index`` are those that it has, or had."""
        kind = resource.kind
        if kind == kinds.FINANCIALMODEL.kind:
            yield Key(kind, *name)
            # Who else claims the same registered model may be the owner now, or no longer.
            for other in self.models.indexed(index[0]) if index else ():
                if other != name:
                    yield Key(kind, *other)
            yield from self.experiments_of(name)
            yield from self.policies_of(name)
        elif kind == kinds.MODELEXPERIMENT.kind or kind == kinds.DRIFTPOLICY.kind:
            yield Key(kind, *name)
            if isinstance(parent, tuple):
                yield Key(kinds.FINANCIALMODEL.kind, *cast("Name", parent))
        elif kind == kinds.RESOURCEQUOTA.kind:
            for waiting in self.models.of(parent):
                if any("Quota" in condition.reason for condition in waiting.status.conditions):
                    yield Key(kinds.FINANCIALMODEL.kind, waiting.metadata.namespace, waiting.metadata.name)
        elif kind == kinds.SERVER.kind:
            for model in self.models.of(parent):
                if model.spec.serving is not None and model.spec.serving.backend == "Seldon":
                    yield Key(kinds.FINANCIALMODEL.kind, model.metadata.namespace, model.metadata.name)
        elif kind == kinds.GATEWAY.kind:
            for model in self.models.indexed(("Gateway", *name)):
                yield Key(kinds.FINANCIALMODEL.kind, *model)
        elif kind in (kinds.POLICY.kind, kinds.BINDING.kind):
            for approval in self.approvals.values():
                model = (approval.metadata.namespace, approval.spec.model_ref.name)
                yield Key(kinds.FINANCIALMODEL.kind, *model)
                yield from self.experiments_of(model)
        elif isinstance(parent, Scorer):
            for model in self.models.of(parent.namespace):
                if scored(model.spec):
                    yield Key(kinds.FINANCIALMODEL.kind, model.metadata.namespace, model.metadata.name)
        elif isinstance(parent, tuple):
            model = cast("Name", parent)
            yield Key(kinds.FINANCIALMODEL.kind, *model)
            if kind in LOOKED_AT_BY_EXPERIMENTS:
                yield from self.experiments_of(model)
            if kind == kinds.MODELDECISION.kind:
                yield from self.policies_of(model)

    def experiments_of(self, model: Name) -> Iterator[Key]:
        """Experiments of a model that are not over."""
        for name in self.experiments.indexed(("Open", *model)):
            yield Key(kinds.MODELEXPERIMENT.kind, *name)

    def policies_of(self, model: Name) -> Iterator[Key]:
        """DriftPolicies that watch a model."""
        for name, _ in self.policies.versions(model):
            yield Key(kinds.DRIFTPOLICY.kind, *name)

    def claims(self, model: FinancialModel) -> tuple[Claim, ...]:
        """Other FinancialModels that name the same registered model, oldest first."""
        name = (model.metadata.namespace, model.metadata.name)
        claims: list[Claim] = []
        for other in self.models.indexed(next(iter(self.models.index_of(name)), None)):
            rival = self.models.get(other) if other != name else None
            if rival is not None and rival.metadata.creation_timestamp is not None:
                metadata = rival.metadata
                claims.append(Claim(*other, uid=metadata.uid, created_at=rival.metadata.creation_timestamp))
        return tuple(sorted(claims, key=lambda claim: (claim.created_at, claim.uid)))


def _experiment(body: Body) -> ModelExperiment:
    # Imported where one exists: the models of these two kinds are a tenth of an operator's start.
    from fiduciary.api.modelexperiment import ModelExperiment

    return ModelExperiment.model_validate(body)


def _policy(body: Body) -> DriftPolicy:
    from fiduciary.api.driftpolicy import DriftPolicy

    return DriftPolicy.model_validate(body)


def _namespace(body: Body) -> Hashable:
    return name_of(body["metadata"])[0]


def _wanted(body: Body) -> tuple[Hashable, ...]:
    """What a model shares with others: first the registered model that it claims, then the Gateways that it names, and
    another backend or engine than the default, whose kinds may come and go."""
    registry, serving = kinds.part(body["spec"], "registry"), kinds.part(body["spec"], "serving")
    gateway, backend = kinds.part(serving, "gateway"), serving.get("backend", "Gateway")
    namespace, name = name_of(body["metadata"])
    claimed = ("Claim", registry.get("connection", "mlflow"), registry.get("model") or f"{namespace}.{name}")
    named = [(ref.get("namespace") or namespace, ref["name"]) for ref in kinds.entries(gateway, "parentRefs")]
    engine = kinds.part(body["spec"], "training").get("engine", "Job")
    other = [("Backend", backend)] if backend != "Gateway" else []
    other += [("Engine", engine)] if engine in ("JobSet", "TrainJob") else []
    return (claimed, *(("Gateway", *gateway) for gateway in dict.fromkeys(named)), *other)


def _open(body: Body) -> tuple[Hashable, ...]:
    """An experiment that is not over: it has no ruling, or still counts requests, or is being deleted."""
    status, model = kinds.part(body, "status"), kinds.referenced_model(body)
    counts = bool(kinds.part(status, "evidence").get("counters"))
    if model is None or ("ruling" in status and not counts and "deletionTimestamp" not in body["metadata"]):
        return ()
    return (("Open", name_of(body["metadata"])[0], model),)


def _model_in_spec(body: Body) -> Hashable:
    model = kinds.referenced_model(body)
    return None if model is None else (name_of(body["metadata"])[0], model)


def _model_in_label(body: Body) -> Hashable:
    model = kinds.labelled_model(body)
    return None if model is None else (name_of(body["metadata"])[0], intern(model))


def _belongs_to(body: Body) -> Hashable:
    """A model, or the scorer that all models of a namespace share."""
    if kinds.labels_of(body).get(meta.LABEL_COMPONENT) == meta.OUTCOMES:
        return Scorer(name_of(body["metadata"])[0])
    return _model_in_label(body)


def _job(body: Body) -> JobView | ComparisonJob | None:
    return kinds.job(body) or comparison_job(body)


def _pod(body: Body) -> PodView | ServingPod:
    return served.pod(body) if _serves(body) else kinds.pod(body)


def _maker(body: Body) -> tuple[Hashable, ...]:
    """The Job or Deployment that a pod belongs to."""
    namespace = name_of(body["metadata"])[0]
    kind, name = ("Deployment", served.deployment_of_pod(body)) if _serves(body) else ("Job", kinds.job_of_pod(body))
    return ((kind, namespace, name),) if name else ()


def _serves(body: Body) -> bool:
    return kinds.labels_of(body).get(meta.LABEL_COMPONENT) in (meta.SERVING, meta.KSERVE)


def _guard(body: Body) -> Body:
    """Of an admission policy or binding: who it is, since when, and which policy it binds."""
    return {
        "name": body["metadata"]["name"],
        "since": kinds.created(body),
        "policy": kinds.part(body, "spec").get("policyName", ""),
    }
