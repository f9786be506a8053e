"""The operator process: kopf senses, the loop decides, a Lease says who works.

kopf is the sensor only: watches, reconnects, authentication. Its handlers here are one line each, and everything that
it would write by itself (events, annotations, peerings) is switched off.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import kopf
import structlog

import fiduciary
from fiduciary.clients.kube import AiohttpCluster, KubeError, NotFound, Resource
from fiduciary.clients.mlflow import Registry
from fiduciary.decide import financialmodel, notyet
from fiduciary.decide.world import Connection, Platform
from fiduciary.engine import kinds
from fiduciary.engine.apply import ORDER, Applier, Step
from fiduciary.engine.endpoints import serving
from fiduciary.engine.lease import Lease, LeaseLost
from fiduciary.engine.loop import Loop
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.observe import Observer
from fiduciary.engine.queue import Priority
from fiduciary.engine.reconcile import Judge, Reconciler
from fiduciary.engine.registry import Mirroring, Registries
from fiduciary.engine.stores import Key, Stores
from fiduciary.settings import Settings, calendars

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection
    from types import ModuleType

    import aiohttp

    from fiduciary.clients.access import Access

log = structlog.get_logger(part="app")

#: How often a kind that the cluster does not have yet is looked for. Once all are there, nobody looks any more.
DISCOVERY_SECONDS = 5.0

#: Reconciles that run when the process is told to end get this long; a pod has 30 s.
DRAIN_SECONDS = 20.0


class _NothingHandled(kopf.DiffBaseStorage):
    """on.event compares nothing, so kopf need not copy each object to see what changed."""

    def build(self, *, body: Any, **_: Any) -> Any:
        return {}

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """kopf keeps nothing on our objects."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def sensor_settings() -> kopf.OperatorSettings:
    """kopf, quiet: it reads and never writes. The loop benchmark measures bare kopf with these very settings."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NothingHandled()
    settings.persistence.progress_storage = _NoProgress()
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 0.5
    settings.networking.request_timeout = 30.0
    settings.networking.error_backoffs = (1, 1, 2, 3, 5)
    settings.process.ultimate_exiting_timeout = DRAIN_SECONDS + 5.0
    for resource, selector in kinds.SELECTORS.items():
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
    return settings


async def sense(
    resources: Collection[Resource],
    deliver: Callable[[Resource, str | None, Any], None],
    login: Callable[[], kopf.AiohttpSession],
    stop: asyncio.Event,
) -> None:
    """Watch these kinds until ``stop`` is set or a signal arrives; raises when a watch dies."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def _(**_: Any) -> kopf.AiohttpSession:  # pyright: ignore[reportUnusedFunction]
        return login()

    def watch(resource: Resource) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
        async def _(event: Any, **_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            deliver(resource, event["type"], event["object"])

    for resource in resources:
        watch(resource)
    # Not kopf.operator(): when it ends it cancels every task that was started after it, our reconciles too.
    # The identity is for peering, which is off; left out, kopf asks for the user's name, and a container has none.
    identity = cast("Any", "fiduciary")
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=sensor_settings(),
        clusterwide=True,
        standalone=True,
        identity=identity,
        stop_flag=stop,
    )
    listen_to_signals(stop)  # kopf took them over
    try:
        ended = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended[0]:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    stop.set()


def listen_to_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set ``stop``; everything else follows from that."""
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)


class Operator:
    """One operator process. ``checkpoint`` and ``order`` exist for the crash tests; production leaves them alone."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        *,
        judge: Judge | ModuleType = financialmodel,
        checkpoint: Callable[[str], None] = lambda name: None,
        order: tuple[Step, ...] = ORDER,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.metrics = Metrics()
        self.stores = Stores()
        self._access = access
        self._judge = cast("Judge", judge)
        self._checkpoint = checkpoint
        self._order = order
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
        registries = self._registries()
        mirroring = Mirroring(
            registries, lambda key: loop.queue.add(cast("Key", key), Priority.RESYNC), self._checkpoint
        )
        reconciler = Reconciler(
            observer=Observer(cluster, self.stores, self._platform(), settings.approval_policies),
            stores=self.stores,
            applier=Applier(cluster, self.stores.by_kind, checkpoint=self._checkpoint, reporter=settings.identity),
            registries=registries,
            mirroring=mirroring,
            judge=self._judge,
            status_judges={
                kinds.MODELEXPERIMENT.kind: notyet.decide_modelexperiment,
                kinds.DRIFTPOLICY.kind: notyet.decide_driftpolicy,
            },
            metrics=self.metrics,
            now=self._now,
            checkpoint=self._checkpoint,
            order=self._order,
        )
        watching = asyncio.create_task(self._watch(cluster, loop))
        sweeping = asyncio.create_task(loop.sweep_forever())
        working = [asyncio.create_task(loop.run(reconciler)), asyncio.create_task(mirroring.run())]
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
            loop.queue.close()
            mirroring.close()
            sweeping.cancel()
            await asyncio.wait((watching, *working), timeout=DRAIN_SECONDS)
            for task in everything:
                task.cancel()
            await asyncio.wait(everything)
            for registry in registries.values():
                await cast("Registry", registry).close()

    async def _watch(self, cluster: AiohttpCluster, loop: Loop) -> None:
        """Watch each kind as soon as the cluster has it; a CRD may come after the operator."""
        missing = list(kinds.WATCHED)
        async with asyncio.TaskGroup() as tasks:
            while missing and not self.stop.is_set():
                found = [resource for resource in missing if await self._exists(cluster, resource)]
                missing = [resource for resource in missing if resource not in found]
                if found:
                    tasks.create_task(sense(found, loop.sense, self._login, self.stop))
                    for resource in found:
                        tasks.create_task(loop.sync(resource))
                if missing:
                    log.warning("kinds.missing", kinds=[resource.kind for resource in missing])
                    await asyncio.sleep(DISCOVERY_SECONDS)

    async def _exists(self, cluster: AiohttpCluster, resource: Resource) -> bool:
        try:
            group = await cluster.raw(f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}")
        except NotFound:
            return False
        except KubeError as error:
            log.warning("discovery.failed", group=resource.api_version, why=str(error))
            return False
        return any(entry["name"] == resource.plural for entry in group.get("resources", []))

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

    def _registries(self) -> Registries:
        return {
            name: Registry(
                connection.tracking_uri, token_file=connection.token_file, observe=self.metrics.registry_request
            )
            for name, connection in self.settings.connections.items()
        }

    def _platform(self) -> Platform:
        settings = self.settings
        return Platform(
            cluster=settings.cluster,
            trainer_image=settings.trainer_image,
            operator_version=fiduciary.__version__,
            connections={
                name: Connection(name, connection.tracking_uri, connection.trainer_uri or connection.tracking_uri)
                for name, connection in settings.connections.items()
            },
            allowed_uris=settings.allowed_uris,
            job_ttl_seconds=settings.job_ttl_seconds,
            progress_seconds=settings.progress_seconds,
            resync_seconds=settings.resync_seconds,
            gitops_editors=settings.gitops_editors,
            mlflow_egress=settings.mlflow_egress,
            calendars=calendars(),
        )
