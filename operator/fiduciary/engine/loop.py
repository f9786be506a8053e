"""The loop: events into the mirror, keys into the queue, a bounded number of reconciles at a time, sweeps beside it."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from fiduciary.clients.kube import Body, Cluster, KubeError, NotFound, Resource
from fiduciary.engine import kinds
from fiduciary.engine.metrics import NAME
from fiduciary.engine.mirror import Change, Listed, listed, name_of
from fiduciary.engine.queue import Backoff, Priority, Waiting
from fiduciary.engine.settled import NEVER, serves, settled_until
from fiduciary.engine.stores import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fiduciary.engine.metrics import Metrics
    from fiduciary.engine.reconcile import Outcome, Reconciler
    from fiduciary.engine.stores import Stores

log = structlog.get_logger(part="loop")


#: After a restart settled models are looked at this slowly; one resync interval is the limit.
SETTLED_PER_SECOND = 2.0

#: Those that serve sooner: until they are looked at nobody probes them.
SERVING_PER_SECOND = 20.0


#: Where a part of a reconcile failed, the rest is not tried again, failure included, sooner than this.
REST_SECONDS = 1.0


class WatchDead(Exception):
    """The cluster has something that a watch should have told us of. A fresh process watches anew."""


class Loop:
    """Owns the queue. ``reconciler`` is set once it exists (it needs the queue to hand keys back)."""

    #: A state that a LIST shows and no event brought within this time was lost, not late.
    GRACE = 15.0

    #: A relist arrives object by object; the comparison waits for it.
    RELIST = 2.0

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        metrics: Metrics,
        *,
        workers: int = 16,
        sweep_seconds: float = 600.0,
        resync_seconds: float = 600.0,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.stores = stores
        self.queue: Waiting[Key] = Waiting(backoff, clock)
        self._cluster = cluster
        self._metrics = metrics
        self._workers = workers
        self._sweep_seconds = sweep_seconds
        self._resync_seconds = resync_seconds
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self._reconciling: set[asyncio.Task[None]] = set()
        self._relisted: dict[str, Resource] = {}
        self._first: dict[Key, None] = {}  # what the first LISTs named, in their order
        self._nudge = asyncio.Event()
        self._synced = asyncio.Event()
        self._ready = asyncio.Event()  # synced, or closed before that
        self._waited = metrics.queue_seconds.labels(name=NAME, controller=NAME)
        self._added = metrics.adds.labels(name=NAME, controller=NAME)
        metrics.watch_queue(lambda: len(self.queue.core), lambda: self.queue.core.running, workers)
        metrics.watch_stores(stores.by_kind.values())

    def sense(self, resource: Resource, event: str | None, body: Body) -> None:
        """One event of a watch; ``event`` is None for an object of a LIST. Cheap, and never waits."""
        store = self.stores.by_kind[resource.kind]
        metadata = body["metadata"]
        name = name_of(metadata)
        parent, index = store.parent_of(name), store.index_of(name)
        if event == "DELETED":
            change = store.remove(name, metadata["uid"], int(metadata["resourceVersion"]))
        else:
            # What was just changed is looked at in a moment; what a LIST brings may rest for ever.
            change = store.put(body, pack=event is None)
        store.last_event = self._clock()
        if event is None and self._synced.is_set():
            # A relist: whatever vanished while the watch was broken was not told. Compare soon.
            self._relisted[resource.kind] = resource
            self._nudge.set()
        if store.synced and not self._synced.is_set():
            self._check_synced()
        if change is Change.STALE:
            self._metrics.stale_events.labels(kind=resource.kind).inc()
        if not change.matters:
            return
        keys = dict.fromkeys(self.stores.concerned(resource, name, store.parent_of(name), store.index_of(name)))
        if (parent, index) != (store.parent_of(name), store.index_of(name)):  # who was concerned before
            keys |= dict.fromkeys(self.stores.concerned(resource, name, parent, index))
        if event is None and not self._synced.is_set():
            self._first |= keys
            return
        priority = Priority.RESYNC if event is None else Priority.CHANGE
        for key in keys:
            self.queue.add(key, priority)
            self._added.inc()

    async def sync(self, resource: Resource) -> None:
        """LIST a kind until its store is synced: until the watch has brought everything that a LIST names.

        One LIST is not enough: what is deleted between it and the watch's own is told by neither.
        """
        store = self.stores.by_kind[resource.kind]
        pause = 1.0
        while not store.synced:
            try:
                items, _ = await self._list(resource)
                store.expect(items)
                self._check_synced()
            except KubeError as error:
                log.warning("sync.waits", kind=resource.kind, why=str(error))
            arrived = -1
            while not store.synced and arrived != len(store):  # while the watch still brings some, it is at work
                arrived = len(store)
                await asyncio.sleep(pause)
            pause = min(2 * pause, 30.0)
        if resource.kind in self.stores.missing:  # it came after the operator
            self.stores.missing -= {resource.kind}
            log.info("kind.arrived", kind=resource.kind)
            self._look_again()

    def miss(self, resources: Iterable[Resource]) -> None:
        """The cluster has none of these kinds: nobody waits for them, and decisions are told."""
        self.stores.missing |= {resource.kind for resource in resources}
        self._check_synced()

    def lose(self, resources: Iterable[Resource]) -> None:
        """The cluster had these kinds and has them no more, nor any of their objects."""
        for resource in resources:
            self.stores.by_kind[resource.kind].clear()
        self.miss(resources)
        self._look_again()

    def _look_again(self) -> None:
        """Every model that asks for a kind that comes and goes."""
        for name in self.stores.models.names() if self._synced.is_set() else ():
            if self.stores.names_optional(name):
                self.queue.add(Key(kinds.FINANCIALMODEL.kind, *name), Priority.RESYNC)

    def _check_synced(self) -> None:
        if self.stores.synced and not self._synced.is_set():
            self._synced.set()
            self._begin()
            self._ready.set()

    def _begin(self) -> None:
        """Everything is listed: what needs work is queued, what is settled gets an appointment within one resync."""
        calm: list[tuple[Key, datetime]] = []
        for key in self._first:
            until = None
            if key.kind == kinds.FINANCIALMODEL.kind:
                until = settled_until(self.stores, (key.namespace, key.name))
            elif key.kind == kinds.MODELEXPERIMENT.kind and not self.stores.experiments.index_of(key[1:]):
                continue  # it is over: only somebody's act makes it news
            if until is None:
                self.queue.add(key, Priority.RESYNC)
            else:
                calm.append((key, until))
        serving = {key for key, _ in calm if serves(self.stores, (key.namespace, key.name))}
        soon = min(self._resync_seconds, len(serving) / SERVING_PER_SECOND)
        late = min(self._resync_seconds, (len(calm) - len(serving)) / SETTLED_PER_SECOND)
        for key, until in calm:
            spread = (soon if key in serving else late) * self._jitter(0.0, 1.0)
            if until is not NEVER:
                spread = min(spread, (until - self._now()).total_seconds())
            self.queue.add_after(key, spread)
        self._first.clear()

    def close(self) -> None:
        """Begin nothing more; :meth:`run` ends with the reconciles under way."""
        self.queue.close()
        self._ready.set()

    async def run(self, reconcile: Reconciler) -> None:
        """Hand out keys until :meth:`close`, then wait for the reconciles under way."""
        await self._ready.wait()
        if self._synced.is_set():
            log.info("synced", **{kind: len(store) for kind, store in self.stores.by_kind.items() if len(store)})
        slots = asyncio.Semaphore(self._workers)
        while True:
            await slots.acquire()
            taken = await self.queue.take()
            if taken is None:
                break
            key, waited = taken
            self._waited.observe(waited)
            task = asyncio.create_task(self._work(reconcile, key, slots))
            self._reconciling.add(task)
            task.add_done_callback(self._reconciling.discard)
        if self._reconciling:
            await asyncio.wait(self._reconciling)

    async def _work(self, reconcile: Reconciler, key: Key, slots: asyncio.Semaphore) -> None:
        started = self._clock()
        try:
            outcome = await reconcile(key)
            self._metrics.reconciled(key.kind, outcome.result, self._clock() - started)
            self._plan(key, outcome)
        finally:
            self.queue.done(key)
            slots.release()

    def _plan(self, key: Key, outcome: Outcome) -> None:
        """When to look at this key again."""
        if outcome.retry_at_least is not None:
            self.queue.fail(key, at_least=outcome.retry_at_least, jitter=self._jitter(0.75, 1.25))
            self._metrics.retries.labels(name=NAME, controller=NAME).inc()
            if outcome.again or outcome.wake_at is not None:  # the rest of it does not wait for what failed
                due = 0.0 if outcome.wake_at is None else (outcome.wake_at - self._now()).total_seconds()
                self.queue.add_after(key, max(REST_SECONDS, 0.0 if outcome.again else due))
            return
        if outcome.result == "gone":
            self.queue.core.drop(key)
            return
        self.queue.core.forget(key)
        if outcome.again:
            self.queue.add(key)
        elif outcome.wake_at is not None:
            # A hundredth later than the second that was asked for: waking early would only mean to sleep once more.
            self.queue.add_after(key, (outcome.wake_at - self._now()).total_seconds() + 0.01)

    async def sweep_forever(self) -> None:
        """Compare the mirror with the cluster, periodically and after each relist. Raises :class:`WatchDead`."""
        await self._synced.wait()
        while True:
            self._nudge.clear()
            try:
                async with asyncio.timeout(self._sweep_seconds * self._jitter(0.9, 1.1)):
                    await self._nudge.wait()
                await asyncio.sleep(self.RELIST)
                due = list(self._relisted.values())
            except TimeoutError:
                due = [store.resource for store in self.stores.by_kind.values() if store.synced]
            self._relisted.clear()
            for resource in due:
                try:
                    await self.sweep(resource)
                except KubeError as error:
                    log.warning("sweep.failed", kind=resource.kind, why=str(error))

    async def sweep(self, resource: Resource) -> None:
        """Compare one kind with a metadata LIST: remove phantoms, and notice a watch that tells nothing any more."""
        store = self.stores.by_kind[resource.kind]
        items, at = await self._list(resource)
        store.pack()
        phantoms, missing = store.compare(items, at)
        for name, uid in phantoms:
            parent, index = store.parent_of(name), store.index_of(name)
            store.remove(name, uid)
            self._metrics.phantoms.labels(kind=resource.kind).inc()
            for key in dict.fromkeys(self.stores.concerned(resource, name, parent, index)):
                self.queue.add(key, Priority.RESYNC)
        if missing:
            await self._verify(resource, {item.name: item for item in items if item.name in set(missing)})

    async def _verify(self, resource: Resource, missing: dict[tuple[str, str], Listed]) -> None:
        """A late event comes within the grace; what is still unknown then was lost with its watch."""
        await asyncio.sleep(self.GRACE)
        store = self.stores.by_kind[resource.kind]
        for name, item in missing.items():
            if store.version(name) >= item.version:
                continue
            try:
                there = await self._cluster.get(resource, name[0] or None, name[1], metadata_only=True)
            except NotFound:
                continue  # deleted since
            if int(there["metadata"]["resourceVersion"]) > store.version(name):
                self._metrics.missing.labels(kind=resource.kind).inc()
                raise WatchDead(f"no event of {resource.kind} {name[0]}/{name[1]} arrived for {self.GRACE:g} s")

    async def _list(self, resource: Resource) -> tuple[list[Listed], int]:
        selector = kinds.SELECTORS.get(resource, "")
        listing = await self._cluster.list(resource, labels=selector, metadata_only=True)
        return listed(listing.items), int(listing.resource_version or 0)
