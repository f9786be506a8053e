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
from fiduciary.assembly import (
    counted_by,
    drift_sources,
    exporter_of,
    ledgers_of,
    prometheus_of,
    receivers,
    registries_of,
    wake,
)
from fiduciary.clients.inference import InferenceClient
from fiduciary.clients.kube import AiohttpCluster
from fiduciary.decide import driftpolicy, financialmodel, modelexperiment
from fiduciary.engine import kinds
from fiduciary.engine.alerting import Alerting
from fiduciary.engine.apply import Applier
from fiduciary.engine.drift.observe import DriftObserver
from fiduciary.engine.drift.reconcile import DriftReconciler
from fiduciary.engine.endpoints import serving
from fiduciary.engine.experiments.observe import ExperimentObserver
from fiduciary.engine.experiments.outcomes import Outcomes
from fiduciary.engine.experiments.reconcile import ExperimentReconciler
from fiduciary.engine.lease import Lease, LeaseLost
from fiduciary.engine.loop import Loop
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.observe import Observer
from fiduciary.engine.patience import PatientDesk
from fiduciary.engine.probekey import probe_key
from fiduciary.engine.probes import Prober
from fiduciary.engine.queue import Priority
from fiduciary.engine.reconcile import Judge, Reconciler
from fiduciary.engine.registry import Desk, Mirroring
from fiduciary.engine.sensor import DRAIN_SECONDS, Watching, listen_to_signals
from fiduciary.engine.stores import Key, Stores
from fiduciary.engine.writes import ORDER, Step
from fiduciary.platform import platform

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import ModuleType

    import aiohttp

    from fiduciary.clients.access import Access
    from fiduciary.clients.mlflow import Registry
    from fiduciary.clients.probekey import ProbeKey
    from fiduciary.settings import Settings

log = structlog.get_logger(part="app")


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
        except Exception:
            log.exception("lease.bug")  # nobody renews it from here on
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
            partial(wake, loop),
            self.metrics,
            fast=settings.probes.fast_seconds,
            concurrency=settings.probes.concurrency,
        )
        registries = registries_of(settings, self.metrics)
        mirroring = Mirroring(
            registries, lambda key: loop.queue.add(cast("Key", key), Priority.RESYNC), self._checkpoint
        )
        desk = PatientDesk(
            Desk(registries, self._judge.questions, self._now, self._checkpoint),
            partial(wake, loop),
            lambda key: loop.queue.news(cast("Key", key)),
        )
        observer = Observer(
            cluster, self.stores, platform(settings, self._access, key), settings.approval_policies, prober=prober
        )
        applier = Applier(cluster, self.stores.by_kind, checkpoint=self._checkpoint, reporter=settings.identity)
        prometheus = prometheus_of(settings)
        counted = None if prometheus is None else counted_by(prometheus, settings, loop, self.metrics)
        scorers, ledgers = ledgers_of(settings, cluster, observer.platform(), loop, self.metrics)
        outcomes = Outcomes(self.stores, ledgers, observer.references)
        exporter = exporter_of(settings, loop)
        experiments = ExperimentReconciler(
            observer=ExperimentObserver(cluster, self.stores, observer.platform, counted, outcomes),
            stores=self.stores,
            applier=applier,
            judge=modelexperiment,
            counted=counted,
            outcomes=outcomes,
            changed=loop.queue.add,
            now=self._now,
            exports=exporter,
        )
        drift = drift_sources(settings, prometheus, registries, ledgers, loop, self.metrics)
        managers, sinks = receivers(settings, self.metrics)
        alerting = Alerting(managers, sinks, loop.queue.add)
        policies = DriftReconciler(
            observer=DriftObserver(
                self.stores,
                observer.platform,
                self.stores.logs,
                drift.counters,
                drift.references,
                drift.ledgers,
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
            *(() if exporter is None else (exporter,)),
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

    def _look_at_others(self, loop: Loop, model: Key) -> None:
        """Experiments and drift policies of a model whose status or log we wrote."""
        name = (model.namespace, model.name)
        for other in (*self.stores.experiments_of(name), *self.stores.policies_of(name)):
            loop.queue.add(other)
