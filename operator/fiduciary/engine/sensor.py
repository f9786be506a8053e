"""kopf as the sensor: watches, reconnects, authentication, and nothing else.

Its handlers are one line each, and everything that it would write by itself (events, annotations, peerings) is switched
off. A kind is watched from the moment that the cluster has it: CRDs may come after the operator, and those of optional
kinds may go again.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, cast

import kopf
import structlog

from fiduciary.clients.kube import AiohttpCluster, KubeError, NotFound, Resource
from fiduciary.engine import kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fiduciary.engine.loop import Loop

log = structlog.get_logger(part="sensor")

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
        await _end_watches(resources)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    stop.set()


async def _end_watches(resources: Collection[Resource]) -> None:
    """End the watches, which kopf leaves running when it ends because one of them died.

    First of all: without their session they would wait for another one, and cancelled together with the tasks that
    pause them they take that for the reason, swallow it, and watch on. The process would never end.
    """
    names = tuple(f"watcher for {resource.plural}.{resource.version}" for resource in resources)
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith(names)]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


def listen_to_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set ``stop``; everything else follows from that."""
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)


class Watching:
    """Watches every kind that there is, and looks for those that there are not."""

    def __init__(
        self, cluster: AiohttpCluster, loop: Loop, login: Callable[[], kopf.AiohttpSession], stop: asyncio.Event
    ) -> None:
        self._cluster = cluster
        self._loop = loop
        self._login = login
        self._stop = stop
        self._absent: set[Resource] = set(kinds.WATCHED)
        self._told: set[Resource] = set()
        self._syncing: dict[Resource, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until :attr:`stop` is set; raises when a watch dies whose kind is still there."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look(tasks))
            await self._stop.wait()  # watches end by themselves
            for task in (looking, *self._syncing.values()):
                task.cancel()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            if self._absent:
                found, unsure = await self._discover()
                self._absent -= found
                # What cannot be asked for is not missing: judged without it, a route would be made a second time.
                self._loop.miss(kinds.OPTIONAL & self._absent - unsure)
                for together in (found - kinds.OPTIONAL, found & kinds.OPTIONAL):
                    if together:
                        tasks.create_task(self._watch(together))
                for resource in found:
                    self._syncing[resource] = tasks.create_task(self._loop.sync(resource))
                if self._absent - self._told:
                    log.warning("kinds.missing", kinds=sorted(resource.kind for resource in self._absent))
                self._told = set(self._absent)
            await asyncio.sleep(DISCOVERY_SECONDS)

    async def _watch(self, resources: set[Resource]) -> None:
        try:
            await sense(resources, self._loop.sense, self._login, self._stop)
        except Exception as error:
            gone = {kind for kind in resources & kinds.OPTIONAL if await self._exists(kind) is False}
            if not gone:
                raise
            log.warning("kinds.gone", kinds=sorted(kind.kind for kind in gone), why=str(error))
            for resource in resources:
                self._syncing[resource].cancel()
            self._absent |= resources  # what is still there is found again, and its watch begun anew
            self._loop.lose(gone)

    async def _discover(self) -> tuple[set[Resource], set[Resource]]:
        """Kinds that are there, and those of which nobody can say."""
        looked_for = tuple(self._absent)
        answers = await asyncio.gather(*(self._exists(resource) for resource in looked_for))
        answered = tuple(zip(looked_for, answers, strict=True))
        return {kind for kind, there in answered if there}, {kind for kind, there in answered if there is None}

    async def _exists(self, resource: Resource) -> bool | None:
        """Whether the API server serves this kind; None: it did not say."""
        root = "/apis" if resource.group else "/api"
        try:
            group = await self._cluster.raw(f"{root}/{resource.api_version}")
        except NotFound:
            return False
        except KubeError as error:
            log.warning("discovery.failed", group=resource.api_version, why=str(error))
            return None
        return any(entry["name"] == resource.plural for entry in group.get("resources", []))
