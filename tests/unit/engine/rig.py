"""The engine on a cluster in memory, one step at a time: no event loop runs beside the test, only its own clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fiduciary.clients.inference import Answer, Example, NoExample
from fiduciary.decide import driftpolicy, modelexperiment
from fiduciary.decide.counters.runtime import Runtime, Seldon
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
from fiduciary.engine.experiments.asking import Sources
from fiduciary.engine.experiments.gather import Gatherer
from fiduciary.engine.experiments.observe import ExperimentObserver
from fiduciary.engine.experiments.outcomes import Outcomes
from fiduciary.engine.experiments.past import Pasts
from fiduciary.engine.experiments.reconcile import Counted, ExperimentReconciler
from fiduciary.engine.loop import Loop
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.observe import Observer
from fiduciary.engine.probes import Client, Prober
from fiduciary.engine.queue import Priority, Waiting
from fiduciary.engine.reconcile import Judge, Outcome, Reconciler
from fiduciary.engine.registry import Desk, Mirroring
from fiduciary.engine.stores import Key, Stores
from fiduciary.engine.writes import ORDER, Step
from tests.unit.engine import toy_judge

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fiduciary.serving.observed import ProbeTarget
    from tests.unit.engine.memory import MemoryCluster, MemoryRegistry, WatchEvent

T = TypeVar("T")

PLATFORM = Platform(
    cluster="test",
    trainer_image="trainer:1",
    operator_version="0",
    connections={"mlflow": Connection("mlflow", "http://mlflow:5000", "http://mlflow:5000")},
    allowed_uris=("pvc://",),
)


#: A target whose next probe is further away than this many seconds has given the same answer several times.
RECENT = 5.0


class Unreachable:
    """A network without model servers."""

    async def example(self, target: ProbeTarget) -> Example:
        raise NoExample(Answer(False, None, message="no route to host"))

    async def infer(self, target: ProbeTarget, example: Example) -> Answer:
        raise AssertionError("asked without an example")


class Killed(BaseException):
    """The process ended. A BaseException, as nothing in the process may handle it."""


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class Process:
    """One life of an operator: mirror and queue start empty, as after a restart."""

    def __init__(
        self,
        cluster: MemoryCluster,
        registry: MemoryRegistry,
        clock: Clock,
        *,
        judge: Any = toy_judge,
        order: tuple[Step, ...] = ORDER,
        checkpoint: Callable[[str], None] = lambda name: None,
        platform: Platform = PLATFORM,
        servers: Client | None = None,
        guards: tuple[str, ...] = (),
        refusals: bool = False,
        prometheus: Any = None,
        ledgers: Any = None,
        artifacts: Any = None,
        alerting: Any = None,
        exports: Any = None,
    ) -> None:
        self.cluster = cluster
        self.clock = clock
        self.refusals = refusals
        self.stores = Stores(now=clock.now)
        metrics = Metrics()
        self.loop = Loop(
            cluster, self.stores, metrics, clock=clock.monotonic, now=clock.now, jitter=lambda low, high: 1.0
        )
        registries = {"mlflow": registry}
        queue: Waiting[Any] = Waiting(clock=clock.monotonic)
        self.mirror_queue = queue
        self.mirroring = Mirroring(
            registries,
            lambda key: self.loop.queue.add(cast("Key", key), Priority.RESYNC),
            checkpoint,
            queue=lambda: queue,
        )
        self.prober = Prober(
            servers or Unreachable(),
            lambda key: self.loop.queue.add(cast("Key", key)),
            metrics,
            clock=clock.monotonic,
            now=clock.now,
            jitter=lambda low, high: 1.0,
        )
        observer = Observer(cluster, self.stores, platform, guards, clock.monotonic, prober=self.prober)
        applier = Applier(cluster, self.stores.by_kind, checkpoint=checkpoint)
        self.counted = None if prometheus is None else self._counted(prometheus, metrics)
        outcomes = Outcomes(self.stores, ledgers, observer.references)
        experiments = ExperimentReconciler(
            observer=ExperimentObserver(cluster, self.stores, observer.platform, self.counted, outcomes),
            stores=self.stores,
            applier=applier,
            judge=modelexperiment,
            counted=self.counted,
            outcomes=outcomes,
            changed=self.loop.queue.add,
            now=clock.now,
            exports=exports,
        )
        self.drift = self._drift(prometheus, artifacts, metrics, ledgers)
        policies = DriftReconciler(
            observer=DriftObserver(
                self.stores,
                observer.platform,
                self.stores.logs,
                self.drift.counters,
                self.drift.references,
                self.drift.ledgers,
            ),
            stores=self.stores,
            applier=applier,
            judge=driftpolicy,
            sources=self.drift,
            alerting=alerting or Alerting({}, {}),
            metrics=metrics,
            changed=self.loop.queue.add,
            now=clock.now,
        )
        self.reconcile = Reconciler(
            observer=observer,
            stores=self.stores,
            applier=applier,
            registrar=Desk(registries, judge.questions, clock.now, checkpoint),
            mirroring=self.mirroring,
            prober=self.prober,
            judge=cast("Judge", judge),
            metrics=metrics,
            now=clock.now,
            order=order,
            reconciles={kinds.MODELEXPERIMENT.kind: experiments, kinds.DRIFTPOLICY.kind: policies},
            changed=self._look_at_others,
        )

    def _counted(self, prometheus: Any, metrics: Metrics) -> Counted:
        sources = Sources(Runtime(), Seldon(), None, scrape_seconds=15, timeout_seconds=10)

        def changed(key: Any) -> None:
            self.loop.queue.add(key)

        return Counted(
            Gatherer(prometheus, sources, changed, metrics, now=self.milliseconds),
            Pasts(prometheus, sources, changed, metrics, now=self.milliseconds),
        )

    def _drift(self, prometheus: Any, artifacts: Any, metrics: Metrics, ledgers: Any) -> DriftSources:
        def changed(key: Any) -> None:
            self.loop.queue.add(key)

        counters = None
        if prometheus is not None:
            counters = Counters(prometheus, Scrapes(15, 10), changed, metrics, now=self.milliseconds)
        registries = {} if artifacts is None else {"mlflow": artifacts}
        return DriftSources(References(registries, changed, clock=self.clock.monotonic), counters, ledgers)

    def milliseconds(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    def _look_at_others(self, model: Key) -> None:
        for key in (*self.stores.experiments_of(model[1:]), *self.stores.policies_of(model[1:])):
            self.loop.queue.add(key)

    def deliver(self, event: WatchEvent) -> None:
        self.loop.sense(event.resource, event.type, event.body)

    def start(self) -> None:
        """List everything, as kopf and the first sweep do."""
        self.cluster.outbox.clear()
        self.loop.miss(self.cluster.absent)
        for resource in kinds.WATCHED:
            if resource in self.cluster.absent:
                continue
            for event in self.cluster.relist(resource):
                self.deliver(event)
            wait(self.loop.sync(resource))
        assert self.stores.synced

    def discover(self) -> None:
        """The kinds that the server did not know are there now."""
        arrived, self.cluster.absent = self.cluster.absent, set()
        for resource in arrived:
            for event in self.cluster.relist(resource):
                self.deliver(event)
            wait(self.loop.sync(resource))

    def step(self) -> Outcome | None:
        """Reconcile the next key; None when nothing is due."""
        taken = self.loop.queue.core.pop(self.clock.seconds)
        if taken is None:
            return None
        key, _ = taken
        outcome = wait(self.reconcile(key))
        assert outcome.result != "error", "see the log above"
        assert outcome.result != "refused" or self.refusals, "see the log above"
        self.loop._plan(key, outcome)
        self.loop.queue.core.done(key, self.clock.seconds)
        return outcome

    def mirror(self) -> bool:
        """Write one wish of the mirror; whether there was one."""
        taken = self.mirror_queue.core.pop(self.clock.seconds)
        if taken is None:
            return False
        wait(self.mirroring.step(taken[0]))
        self.mirror_queue.core.done(taken[0], self.clock.seconds)
        return True

    def probe(self) -> bool:
        """Probe one target that is due; whether there was one."""
        taken = self.prober.queue.core.pop(self.clock.seconds)
        if taken is None:
            return False
        wait(self.prober.step(taken[0]))
        self.prober.queue.core.done(taken[0], self.clock.seconds)
        return True

    def ask(self) -> bool:
        """Ask Prometheus, and MLflow for a drift reference, for what is due; whether anything was."""
        if self._asked_for_drift():
            return True
        if self.counted is None:
            return False
        due = self.counted.pasts.next_due()
        if due is not None and due <= self.milliseconds():
            asyncio.run(self.counted.pasts.step())
            return True
        due = self.counted.gatherer.next_due()
        if due is None or due > self.milliseconds():
            return False
        asyncio.run(self.counted.gatherer.ask())
        return True

    def _asked_for_drift(self) -> bool:
        references, counters = self.drift.references, self.drift.counters
        taken = references.queue.core.pop(self.clock.seconds)
        if taken is not None:
            asyncio.run(references.step(taken[0]))
            references.queue.core.done(taken[0], self.clock.seconds)
            return True
        due = None if counters is None else counters.next_due()
        if counters is None or due is None or due > self.milliseconds():
            return False
        asyncio.run(counters.ask())
        return True

    def settle(self, limit: int = 500, horizon: float = 600.0) -> None:
        """Deliver, reconcile, mirror and probe until nothing is left to do, appointments within ``horizon`` s included.

        Probes never end: those that are made in peace are no work.
        """
        for _ in range(limit):
            while self.cluster.outbox:
                self.deliver(self.cluster.outbox.pop(0))
            if self.step() is not None or self.mirror() or self.probe() or self.ask():
                continue
            due = [
                due
                for due, near in (
                    (self.loop.queue.core.next_due(), horizon),
                    (self.mirror_queue.core.next_due(), horizon),
                    (self.prober.queue.core.next_due(), min(horizon, RECENT)),
                )
                if due is not None and due <= self.clock.seconds + near
            ]
            if not due:
                return
            self.clock.seconds = max(self.clock.seconds, min(due))
        raise AssertionError("the engine does not come to rest")


def finish_jobs(cluster: MemoryCluster) -> None:
    """Kubernetes ends every Job that runs."""
    for (kind, namespace, name), body in list(cluster.objects.items()):
        if kind == "Job" and not (body.get("status") or {}).get("conditions"):
            ended = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            cluster.touch(kinds.JOB, namespace, name, status={"conditions": [ended]})


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits, without the cost of an event loop a step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    return asyncio.run(_refuse())


async def _refuse() -> Any:
    raise AssertionError("the step waited for something that only an event loop could bring")
