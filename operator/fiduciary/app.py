"""The operator process: kopf senses, the loop decides, a Lease says who works."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

import kopf
import structlog

import fiduciary
from fiduciary.clients.alertmanager import PATH, Alertmanager
from fiduciary.clients.cloudevents import EventSink
from fiduciary.clients.delivery import Credentials, Receiver
from fiduciary.clients.inference import InferenceClient
from fiduciary.clients.kube import AiohttpCluster
from fiduciary.clients.ledger import Scorers
from fiduciary.clients.mlflow import Registry
from fiduciary.clients.prometheus import Prometheus
from fiduciary.clients.tokens import Tokens
from fiduciary.decide import driftpolicy, financialmodel, modelexperiment
from fiduciary.decide.counters.templates import Contour, Runtime, Seldon
from fiduciary.decide.world import Connection, Platform
from fiduciary.engine import kinds
from fiduciary.engine.alerting import Alerting
from fiduciary.engine.apply import Applier
from fiduciary.engine.drift.counted import Scrapes
from fiduciary.engine.drift.counters import Counters
from fiduciary.engine.drift.observe import DriftObserver
from fiduciary.engine.drift.reconcile import DriftReconciler
from fiduciary.engine.drift.reconcile import Sources as DriftSources
from fiduciary.engine.drift.references import References
from fiduciary.engine.endpoints import serving
from fiduciary.engine.experiments.asking import Sources
from fiduciary.engine.experiments.gather import Gatherer
from fiduciary.engine.experiments.log import Logs
from fiduciary.engine.experiments.observe import ExperimentObserver
from fiduciary.engine.experiments.outcomes import Outcomes
from fiduciary.engine.experiments.past import Pasts
from fiduciary.engine.experiments.reconcile import Counted, ExperimentReconciler
from fiduciary.engine.lease import Lease, LeaseLost
from fiduciary.engine.ledgers import Ledgers
from fiduciary.engine.loop import Loop
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.observe import Observer
from fiduciary.engine.patience import PatientDesk
from fiduciary.engine.probekey import probe_key
from fiduciary.engine.probes import Prober
from fiduciary.engine.queue import Priority
from fiduciary.engine.reconcile import Judge, Reconciler
from fiduciary.engine.registry import Desk, Mirroring, Registries
from fiduciary.engine.sensor import DRAIN_SECONDS, Watching, listen_to_signals
from fiduciary.engine.stores import Key, Stores
from fiduciary.engine.writes import ORDER, Step
from fiduciary.manifests.outcomes import audience
from fiduciary.manifests.plans import Environment, Postgresql, Scoring
from fiduciary.settings import Settings, calendars

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
    from types import ModuleType

    import aiohttp

    from fiduciary.clients.access import Access
    from fiduciary.clients.probekey import ProbeKey
    from fiduciary.settings import ReceiverSettings

log = structlog.get_logger(part="app")

#: Questions about the present that Prometheus is asked at once; it runs 20 at a time by itself.
URGENT_IN_FLIGHT = 8


def _inference(key: ProbeKey | None, settings: Settings) -> InferenceClient:
    authorities = {gateway.url: str(gateway.ca_file) for gateway in settings.gateways.values() if gateway.ca_file}
    return InferenceClient(key, timeout=settings.probes.timeout_seconds, authorities=authorities)


class Operator:
    """One operator process.

    ``checkpoint`` and ``order`` exist for the crash tests, ``inference`` for tests that have no network of pods;
    production leaves them alone.
    """

    def __init__(
        self,
        settings: Settings,
        access: Access,
        *,
        judge: Judge | ModuleType = financialmodel,
        checkpoint: Callable[[str], None] = lambda name: None,
        order: tuple[Step, ...] = ORDER,
        inference: Callable[[ProbeKey | None, Settings], InferenceClient] = _inference,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.metrics = Metrics()
        self.stores = Stores({name: gateway.url for name, gateway in settings.gateways.items()})
        self._access = access
        self._judge = cast("Judge", judge)
        self._checkpoint = checkpoint
        self._order = order
        self._inference = inference
        self._now = now
        self._state = "starting"
        self._dead = ""
        self._connector: aiohttp.BaseConnector | None = None

    async def run(self, started: Callable[[int], None] = lambda port: None) -> None:
        """Run until a signal or :attr:`stop`; ``started`` is told the port of the endpoints.

        Raises when something that only a fresh process mends has happened: a dead watch, a lost Lease.
        """
        listen_to_signals(self.stop)
        async with (
            self._connected() as cluster,
            serving(
                self.settings.listen, live=lambda: self._dead, ready=self._ready, metrics=self.metrics.render
            ) as port,
        ):
            started(port)
            lease = Lease(cluster, self.settings.namespace, self.settings.identity, self.settings.lease)
            if self.settings.lease.enabled and not await self._lead(lease):
                return
            keeper = asyncio.create_task(self._keep(lease)) if self.settings.lease.enabled else None
            try:
                await self._work(cluster)
            except Exception as error:
                self._dead = f"ended by {type(error).__name__}"
                raise
            finally:
                if keeper is not None:
                    keeper.cancel()
                    await lease.release()

    async def _lead(self, lease: Lease) -> bool:
        """Wait for the Lease; False when told to stop before it was ours."""
        self._state = "standby"
        log.info("standby", lease=self.settings.lease.name, identity=self.settings.identity)
        leading, stopped = asyncio.create_task(lease.acquire()), asyncio.create_task(self.stop.wait())
        await asyncio.wait((leading, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not leading.done():
            leading.cancel()
            return False
        leading.result()
        self.metrics.leader.labels(name=self.settings.lease.name).set(1)
        log.info("leading", lease=self.settings.lease.name, identity=self.settings.identity)
        return True

    async def _keep(self, lease: Lease) -> None:
        """Losing the Lease ends the process at once, whatever it is doing: another one may be at work already."""
        try:
            await lease.keep()
        except LeaseLost as error:
            log.error("lease.lost", why=str(error))
            os._exit(3)

    async def _work(self, cluster: AiohttpCluster) -> None:
        self._state = "syncing"
        settings = self.settings
        loop = Loop(
            cluster,
            self.stores,
            self.metrics,
            workers=settings.workers,
            sweep_seconds=settings.sweep_seconds,
            resync_seconds=settings.resync_seconds,
        )
        key = await probe_key(cluster, settings.namespace) if settings.server_image else None
        inference = self._inference(key, settings)
        prober = Prober(
            inference,
            partial(_wake, loop),
            self.metrics,
            fast=settings.probes.fast_seconds,
            concurrency=settings.probes.concurrency,
        )
        registries = self._registries()
        mirroring = Mirroring(
            registries, lambda key: loop.queue.add(cast("Key", key), Priority.RESYNC), self._checkpoint
        )
        desk = PatientDesk(
            Desk(registries, self._judge.questions, self._now, self._checkpoint),
            partial(_wake, loop),
            lambda key: loop.queue.news(cast("Key", key)),
        )
        observer = Observer(cluster, self.stores, self._platform(key), settings.approval_policies, prober=prober)
        applier = Applier(cluster, self.stores.by_kind, checkpoint=self._checkpoint, reporter=settings.identity)
        prometheus = self._prometheus()
        counted = None if prometheus is None else self._counted(prometheus, loop)
        scorers, ledgers = self._ledgers(cluster, observer.platform(), loop)
        outcomes = Outcomes(self.stores, ledgers, observer.references)
        experiments = ExperimentReconciler(
            observer=ExperimentObserver(cluster, self.stores, observer.platform, counted, outcomes),
            stores=self.stores,
            applier=applier,
            judge=modelexperiment,
            counted=counted,
            outcomes=outcomes,
            changed=loop.queue.add,
            now=self._now,
        )
        drift = self._drift_sources(prometheus, registries, loop)
        managers, sinks = self._receivers()
        alerting = Alerting(managers, sinks, loop.queue.add)
        policies = DriftReconciler(
            observer=DriftObserver(
                self.stores, observer.platform, Logs(self.stores.records), drift.counters, drift.references
            ),
            stores=self.stores,
            applier=applier,
            judge=driftpolicy,
            sources=drift,
            alerting=alerting,
            metrics=self.metrics,
            changed=loop.queue.add,
            now=self._now,
        )
        reconciler = Reconciler(
            observer=observer,
            stores=self.stores,
            applier=applier,
            registrar=desk,
            mirroring=mirroring,
            prober=prober,
            judge=self._judge,
            metrics=self.metrics,
            now=self._now,
            order=self._order,
            reconciles={kinds.MODELEXPERIMENT.kind: experiments, kinds.DRIFTPOLICY.kind: policies},
            changed=lambda model: self._look_at_others(loop, model),
        )
        watching = asyncio.create_task(Watching(cluster, loop, self._login, self.stop).run())
        sweeping = asyncio.create_task(loop.sweep_forever())
        parts = (
            mirroring,
            prober,
            *(() if counted is None else (counted.gatherer, counted.pasts)),
            *(() if ledgers is None else (ledgers,)),
            alerting,
            drift.references,
            *(() if drift.counters is None else (drift.counters,)),
        )
        working = [asyncio.create_task(part.run()) for part in parts]
        working.append(asyncio.create_task(loop.run(reconciler)))
        stopped = asyncio.create_task(self.stop.wait())
        everything = (watching, sweeping, *working, stopped)
        try:
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a dead watch or a bug of the loop itself: only a fresh process mends that
        finally:
            self._state = "stopping"
            log.info("stopping", reconciles_under_way=loop.queue.core.running)
            self.stop.set()  # kopf ends by itself
            loop.close()
            for part in parts:
                part.close()
            sweeping.cancel()
            await asyncio.wait((watching, *working), timeout=DRAIN_SECONDS)
            for task in everything:
                task.cancel()
            await asyncio.wait(everything)
            await desk.close()
            await inference.close()
            if prometheus is not None:
                await prometheus.close()
            if scorers is not None:
                await scorers.close()
            for receiver in (*managers.values(), *sinks.values()):
                await receiver.close()
            for registry in registries.values():
                await cast("Registry", registry).close()

    def _ready(self) -> str:
        if self._dead:
            return self._dead
        if self._state in ("standby", "stopping") or (self._state == "syncing" and self.stores.synced):
            return ""
        return f"{self._state}: not yet listed: {', '.join(self.stores.unsynced())}"

    def _login(self) -> kopf.AiohttpSession:
        assert self._connector is not None
        session = self._access.session(self._connector)
        return kopf.AiohttpSession(server=self._access.server, aiohttp_session=session)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[AiohttpCluster]:
        async with self._access.connector() as connector, self._access.session(connector) as session:
            self._connector = connector
            session.headers["User-Agent"] = f"fiduciary-operator/{fiduciary.__version__}"
            yield AiohttpCluster(self._access.server, lambda: session, observe=self.metrics.request)

    def _prometheus(self) -> Prometheus | None:
        settings = self.settings.prometheus
        if settings is None:
            return None
        return Prometheus(
            settings.url,
            ca_file=settings.ca_file,
            token_file=settings.token_file,
            timeout=settings.timeout_seconds,
        )

    def _counted(self, prometheus: Prometheus, loop: Loop) -> Counted:
        """What asks Prometheus for experiments."""
        settings = self.settings.prometheus
        assert settings is not None
        namespace, pod = settings.namespace_label, settings.pod_label
        gateway = None
        if settings.gateway == "Contour":
            gateway = Contour(self.settings.gateway_namespaces, namespace=namespace, pod=pod)
        pods = Runtime(namespace, pod), Seldon(namespace, pod)
        sources = Sources(*pods, gateway, settings.scrape_seconds, settings.scrape_timeout_seconds)

        # A failing challenger is seen at each scrape, however long others' answers take: the next scrape asks anew.
        urgent = prometheus.beside(
            timeout=min(settings.timeout_seconds, float(settings.scrape_seconds)), in_flight=URGENT_IN_FLIGHT
        )
        past = prometheus.beside(in_flight=1)
        return Counted(
            Gatherer(prometheus, sources, partial(_wake, loop), self.metrics, urgent=urgent),
            Pasts(past, sources, partial(_wake, loop), self.metrics),
        )

    def _ledgers(
        self, cluster: AiohttpCluster, platform: Platform, loop: Loop
    ) -> tuple[Scorers, Ledgers] | tuple[None, None]:
        """What reads the outcome scorers; nothing where none is made."""
        if platform.serving is None or platform.serving.scoring is None:
            return None, None
        settings = self.settings.outcomes
        tokens = Tokens(cluster, platform.serving.scoring.operator)

        scorers = Scorers(
            settings.url,
            token=lambda namespace: tokens.of(audience(namespace)),
            timeout=settings.timeout_seconds,
            observe=self.metrics.ledger_request,
        )
        return scorers, Ledgers(scorers, partial(_wake, loop), seconds=settings.poll_seconds)

    def _drift_sources(self, prometheus: Prometheus | None, registries: Registries, loop: Loop) -> DriftSources:
        """What is read for drift policies."""

        artifacts = {name: cast("Registry", registry) for name, registry in registries.items()}
        settings = self.settings.prometheus
        counters = None
        if prometheus is not None and settings is not None:
            scrapes = Scrapes(
                settings.scrape_seconds, settings.scrape_timeout_seconds, settings.namespace_label, settings.pod_label
            )
            counters = Counters(prometheus, scrapes, partial(_wake, loop), self.metrics)
        return DriftSources(References(artifacts, partial(_wake, loop)), counters)

    def _receivers(self) -> tuple[Mapping[str, Alertmanager], Mapping[str, EventSink]]:
        """Who takes alerts, by the names that the settings give them."""

        def receiver(name: str, address: str, settings: ReceiverSettings) -> Receiver:
            shown = Credentials(
                token_file=settings.token_file,
                username=settings.username,
                password_file=settings.password_file,
                ca_file=settings.ca_file,
                cert_file=settings.cert_file,
                key_file=settings.key_file,
            )
            observe = partial(self.metrics.alert_post, name)
            return Receiver(address, shown, timeout=settings.timeout_seconds, observe=observe)

        managers = {
            name: Alertmanager([receiver(name, url.rstrip("/") + PATH, its) for url in its.urls])
            for name, its in self.settings.alertmanagers.items()
        }
        sinks = {
            name: EventSink(receiver(name, its.url, its), its.mode) for name, its in self.settings.event_sinks.items()
        }
        return managers, sinks

    def _look_at_others(self, loop: Loop, model: Key) -> None:
        """Experiments and drift policies of a model whose status or log we wrote."""
        name = (model.namespace, model.name)
        for other in (*self.stores.experiments_of(name), *self.stores.policies_of(name)):
            loop.queue.add(other)

    def _registries(self) -> Registries:
        return {
            name: Registry(
                connection.tracking_uri, token_file=connection.token_file, observe=self.metrics.registry_request
            )
            for name, connection in self.settings.connections.items()
        }

    def _platform(self, key: ProbeKey | None) -> Platform:
        settings = self.settings
        return Platform(
            cluster=settings.cluster,
            trainer_image=settings.trainer_image,
            trainer_feast_image=settings.trainer_feast_image,
            operator_version=fiduciary.__version__,
            connections={
                name: Connection(
                    name,
                    connection.tracking_uri,
                    connection.trainer_uri or connection.tracking_uri,
                    connection.artifacts,
                    connection.web_uri or connection.tracking_uri,
                )
                for name, connection in settings.connections.items()
            },
            allowed_uris=settings.allowed_uris,
            job_ttl_seconds=settings.job_ttl_seconds,
            progress_seconds=settings.progress_seconds,
            resync_seconds=settings.resync_seconds,
            gitops_editors=settings.gitops_editors,
            mlflow_egress=settings.mlflow_egress,
            calendars=calendars(),
            serving=self._environment(key) if settings.server_image else None,
            hostnames=settings.hostnames,
            probe_seconds=round(settings.probes.steady_seconds),
            probe_protocols=("rest", "grpc"),
            wave=settings.wave,
            experiments=settings.prometheus is not None,
            notional=settings.outcomes.notional,
            replay=settings.outcomes.replay,
        )

    def _scoring(self) -> Scoring | None:
        """What makes a namespace's outcome scorer; None where no experiment could use one."""
        settings, outcomes = self.settings, self.settings.outcomes
        if settings.prometheus is None or not settings.outcomes_image:
            return None
        told = self._access.account() or ("", "")
        issuer, operator = outcomes.issuer or told[0], outcomes.operator or told[1]
        if not issuer or not operator:
            log.error(
                "outcomes.unusable",
                why="this process is no ServiceAccount, and the settings name no outcomes.issuer and outcomes.operator",
                then="no outcome scorer is made: run in a pod, or name both",
            )
            return None
        database = outcomes.postgresql
        return Scoring(
            image=settings.outcomes_image,
            issuer=issuer,
            operator=operator,
            operator_namespace=settings.namespace,
            monitoring_namespaces=settings.monitoring_namespaces,
            keys_url=outcomes.keys_url,
            writers=outcomes.writers,
            writer_namespaces=outcomes.writer_namespaces,
            storage_class=outcomes.storage_class,
            storage_size=outcomes.storage_size,
            postgresql=None if database is None else Postgresql(database.url, database.secret, database.egress),
            retention_days=outcomes.retention_days,
        )

    def _environment(self, key: ProbeKey | None) -> Environment:
        settings = self.settings
        return Environment(
            cluster=settings.cluster,
            image=settings.server_image,
            operator_namespace=settings.namespace,
            gateway_namespaces=settings.gateway_namespaces,
            monitoring_namespaces=settings.monitoring_namespaces,
            mlflow_egress=settings.mlflow_egress,
            records_url=settings.records.url if settings.records else None,
            records_egress=settings.records.egress if settings.records else (),
            scoring=self._scoring(),
            probe_key=key.public if key else None,
            pre_stop_seconds=settings.pre_stop_seconds,
            drain_seconds=settings.drain_seconds,
        )


def _wake(loop: Loop, key: Hashable) -> None:
    """For parts that know no keys of the loop: they give back what they were asked for."""
    loop.queue.add(cast("Key", key))
