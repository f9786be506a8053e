"""Observe: gather the world of one key. Everything comes from the mirror except what is asked past it on purpose."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fiduciary.api import meta
from fiduciary.clients.kube import Body, Cluster, Forbidden, NotFound, Resource
from fiduciary.decide.world import NO_SELDON, JobView, Platform, PodView, ReferenceView, World
from fiduciary.engine import kinds, othersviews
from fiduciary.engine.stores import Scorer
from fiduciary.manifests import mounts
from fiduciary.serving.observed import ScorerView, ServingPod
from fiduciary.serving.seldonviews import SeldonView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.engine.mirror import Name
    from fiduciary.engine.stores import Key, Stores
    from fiduciary.serving.observed import ChildView, DeploymentView, GatewayView, ProbeView
    from fiduciary.serving.seldonviews import ServerView


#: Secrets and claims are not watched (the operator must not be able to list them), so a label that their owner sets
#: is noticed after at most this many seconds.
REFERENCE_SECONDS = 10.0
REFERENCES_KEPT = 4096


class Probing(Protocol):
    """What is asked of :class:`fiduciary.engine.probes.Prober`."""

    def results(self, key: Key) -> tuple[ProbeView, ...]: ...
    def since(self, key: Key) -> datetime | None: ...


class Observer:
    """Builds the :class:`World` of a FinancialModel."""

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        platform: Platform,
        guards: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
        *,
        prober: Probing | None = None,
    ) -> None:
        self._cluster = cluster
        self._stores = stores
        self._platform = platform
        self._guards = guards
        self._clock = clock
        self._prober = prober
        self._references: dict[tuple[str, str, str], tuple[float, ReferenceView]] = {}

    async def world(self, key: Key) -> World | None:
        """The world as the mirror has it; None where the model does not exist."""
        name = (key.namespace, key.name)
        stores = self._stores
        model = stores.models.get(name)
        if model is None:
            return None
        log = stores.logs.of(name, often=False)
        approvals = sorted(stores.approvals.of(name), key=lambda approval: _age(approval.metadata))
        platform = self.platform()
        trainings = [job for store in stores.trainings for job in store.of(name) if isinstance(job, JobView)]
        jobs = [self._with_pods(job, key.namespace) for job in trainings]
        return World(
            model=model,
            platform=platform,
            records=log.records,
            history=log.history,
            jobs=tuple(sorted(jobs, key=lambda job: (job.created_at, job.name))),
            runtimes=tuple(sorted(stores.runtimes.of(name), key=lambda runtime: runtime.name)),
            approvals=tuple(approvals),
            experiments=tuple(sorted(stores.experiments.of(name), key=lambda one: _age(one.metadata))),
            policies=tuple(sorted(stores.policies.of(name), key=lambda policy: policy.metadata.name)),
            quotas=tuple(sorted(stores.quotas.of(key.namespace), key=lambda quota: quota.name)),
            references=await self.references(model),
            claims=stores.claims(model),
            namespace_terminating=await self._terminating(model),
            deployments=tuple(sorted(self._serving(name), key=_kind_and_name)),
            seldon=self._seldon(name, model),
            children=tuple(sorted((child for store in stores.companions for child in store.of(name)), key=_kind_name)),
            route=stores.routes.get(name),
            gateways=tuple(sorted(self._gateways(name), key=lambda found: (found.namespace, found.name))),
            probes=() if self._prober is None else self._prober.results(key),
            probing_since=None if self._prober is None else self._prober.since(key),
            missing_kinds=stores.missing,
            scorer=self._scorer(key.namespace),
            rollout=None if platform.serving is None else stores.rollout.view(platform.serving.image),
        )

    def _gateways(self, name: Name) -> Iterator[GatewayView]:
        """Those that the model's spec names and that exist."""
        for wanted in self._stores.models.index_of(name):
            match wanted:
                case ("Gateway", str() as namespace, str() as gateway):
                    found = self._stores.gateways.get((namespace, gateway))
                    if found is not None:
                        yield found
                case _:
                    pass

    def _scorer(self, namespace: str) -> ScorerView:
        parent, stores = Scorer(namespace), self._stores
        others = [child for store in stores.companions for child in store.of(parent)]
        deployment = next(iter(stores.deployments.of(parent)), None)
        return ScorerView(deployment, tuple(sorted(others, key=_kind_name)))

    async def refresh(self, key: Key) -> None:
        """Read past the mirror whatever a claim rests on: the model, its records and its Jobs.

        Raises :class:`NotFound` where the model is gone. The mirror learns that from the watch, as others do.
        """
        stores, cluster = self._stores, self._cluster
        stores.models.put(await cluster.get(kinds.FINANCIALMODEL, key.namespace, key.name))
        # Records carry the label because we made them; a restored log keeps it.
        mine = f"{meta.LABEL_MODEL}={key.name}"
        for store in (stores.records, *stores.trainings):
            if store.resource.kind in stores.missing:
                continue
            listing = await cluster.list(store.resource, key.namespace, labels=mine)
            for body in listing.items:
                store.put(body)

    async def references(self, model: FinancialModel) -> tuple[ReferenceView, ...]:
        """The Secrets and claims that its training, its replays and its versions would mount."""
        namespace = model.metadata.namespace
        return tuple([await self._reference(namespace, *wanted) for wanted in references(model)])

    def platform(self) -> Platform:
        """The operator's settings with what the cluster says about the policies that guard approvals."""
        active, since = self._guarded()
        if (active, since) != (self._platform.approval_policies_active, self._platform.approval_policies_since):
            self._platform = replace(self._platform, approval_policies_active=active, approval_policies_since=since)
        return self._platform

    def _guarded(self) -> tuple[bool, datetime | None]:
        """Whether every needed policy exists and is bound, and since when the last of them is."""
        since: list[datetime] = []
        for name in self._guards:
            guard = self._stores.guards.get(("", name))
            bound = [binding["since"] for binding in self._stores.bindings.values() if binding["policy"] == name]
            if guard is None or not bound:
                return False, None
            since += [guard["since"], min(bound)]
        return bool(since), max(since, default=None)

    def _with_pods(self, job: JobView, namespace: str) -> JobView:
        found = map(self._stores.pods.get, self._stores.pods.indexed(("Job", namespace, job.name)))
        pods = [pod for pod in found if isinstance(pod, PodView)]
        return replace(job, pods=tuple(sorted(pods, key=_name))) if pods else job

    def _serving(self, name: Name) -> Iterator[DeploymentView]:
        """The model's Deployments with their pods."""
        stores, pods = self._stores, self._stores.pods
        lent: dict[str, DeploymentView] = {}
        for deployment in stores.deployments.of(name):
            found = map(pods.get, pods.indexed(("Deployment", name[0], deployment.name)))
            its = [pod for pod in found if isinstance(pod, ServingPod)]
            view = replace(deployment, pods=tuple(sorted(its, key=_name))) if its else deployment
            if view.lent_by:
                lent[view.lent_by] = view
            else:
                yield view
        for service in stores.inference_services.of(name):
            yield othersviews.served_by(service, lent.get(service.name))
        yield from stores.seldon_models.of(name)

    def _seldon(self, name: Name, model: FinancialModel) -> SeldonView:
        """What Seldon has for this model; nothing of Servers where it is not asked to serve."""
        stores = self._stores
        splits = tuple(sorted(stores.splits.of(name), key=lambda split: split.name))
        servers: tuple[ServerView, ...] = ()
        if model.spec.serving is not None and model.spec.serving.backend == "Seldon":
            servers = stores.seldon_servers(name[0])
        return SeldonView(splits, servers) if splits or servers else NO_SELDON

    async def _terminating(self, model: FinancialModel) -> bool:
        """Asked only for a model that is being deleted: nothing else depends on it."""
        if model.metadata.deletion_timestamp is None:
            return False
        try:
            namespace = await self._cluster.get(kinds.NAMESPACE, None, model.metadata.namespace, metadata_only=True)
        except NotFound:
            return True
        return "deletionTimestamp" in namespace["metadata"]

    async def _reference(self, namespace: str, kind: mounts.ReferenceKind, name: str) -> ReferenceView:
        cached = self._references.get((namespace, kind, name))
        now = self._clock()
        if cached is not None and now - cached[0] < REFERENCE_SECONDS:
            return cached[1]
        view = await self._look(namespace, kind, name)
        if len(self._references) >= REFERENCES_KEPT:
            self._references.clear()
        self._references[namespace, kind, name] = (now, view)
        return view

    async def _look(self, namespace: str, kind: mounts.ReferenceKind, name: str) -> ReferenceView:
        resource: Resource = kinds.SECRET if kind == "Secret" else kinds.CLAIM
        try:
            body: Body = await self._cluster.get(resource, namespace, name, metadata_only=True)
        except NotFound:
            return ReferenceView(kind, name, "Missing")
        except Forbidden:
            return ReferenceView(kind, name, "Forbidden")
        return ReferenceView(kind, name, "Found", consumable=kinds.labels_of(body).get(meta.CONSUMABLE) == "true")


def references(model: FinancialModel) -> list[mounts.Reference]:
    """Secrets and claims that the training and the serving of this model would mount, each once."""
    storage = mounts.storage_secret(model.spec)
    return list(dict.fromkeys([*mounts.references(model.spec), *([storage] if storage is not None else [])]))


def _name(view: PodView | ServingPod | DeploymentView) -> str:
    return view.name


def _kind_and_name(view: DeploymentView) -> tuple[str, str]:
    return view.kind, view.name


def _kind_name(view: ChildView) -> tuple[str, str]:
    return view.kind, view.name


def _age(metadata: meta.ObjectMeta) -> tuple[float, str]:
    """Oldest first; the API server's clock has whole seconds, so the name decides the rest."""
    created = metadata.creation_timestamp
    return (0.0 if created is None else created.timestamp(), metadata.name)
