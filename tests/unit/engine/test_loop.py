"""The loop's own duties: lost deletions, dead watches, appointments after a restart, an end without loose ends."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fiduciary.engine import kinds
from fiduciary.engine.loop import Loop, WatchDead
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.queue import Backoff
from fiduciary.engine.reconcile import Outcome
from fiduciary.engine.stores import Key, Stores
from tests.unit.engine import toy_judge
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.rig import Clock, Process, wait

KEY = Key("FinancialModel", "quant", "m")


class Rig:
    def __init__(self, **options: object) -> None:
        self.cluster = MemoryCluster()
        self.stores = Stores()
        self.metrics = Metrics()
        self.loop = Loop(
            self.cluster,
            self.stores,
            self.metrics,
            backoff=Backoff(first=0.001),
            jitter=lambda low, high: 1.0,
            **options,  # type: ignore[arg-type]
        )
        self.loop.GRACE = 0.0  # type: ignore[misc]

    async def sync(self) -> None:
        for resource in kinds.WATCHED:
            for event in self.cluster.relist(resource):
                self.loop.sense(event.resource, event.type, event.body)
            await self.loop.sync(resource)
        self.cluster.outbox.clear()

    def deliver(self) -> None:
        while self.cluster.outbox:
            event = self.cluster.outbox.pop(0)
            self.loop.sense(event.resource, event.type, event.body)

    def queued(self) -> list[Key]:
        keys = []
        while (taken := self.loop.queue.core.pop(self.loop.queue.clock())) is not None:
            keys.append(taken[0])
            self.loop.queue.core.done(taken[0], 0.0)
        return keys


def test_a_lost_deletion_is_found_by_the_sweep_and_its_model_is_looked_at() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body())
        await rig.sync()
        rig.cluster.remove(kinds.FINANCIALMODEL, "quant", "m")
        rig.cluster.outbox.clear()  # the watch was broken
        rig.queued()
        await rig.loop.sweep(kinds.FINANCIALMODEL)
        assert len(rig.stores.models) == 0
        assert rig.queued() == [KEY]

    asyncio.run(scenario())


def test_a_state_that_no_event_brings_means_that_the_watch_is_dead() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.sync()
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body())
        with pytest.raises(WatchDead, match="no event of FinancialModel quant/m arrived"):
            await rig.loop.sweep(kinds.FINANCIALMODEL)

    asyncio.run(scenario())


def test_a_state_that_is_only_late_or_gone_again_is_no_alarm() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.sync()
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body())
        asyncio.get_running_loop().call_soon(rig.deliver)
        await rig.loop.sweep(kinds.FINANCIALMODEL)
        assert len(rig.stores.models) == 1
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body("brief"))
        asyncio.get_running_loop().call_soon(rig.cluster.remove, kinds.FINANCIALMODEL, "quant", "brief")
        await rig.loop.sweep(kinds.FINANCIALMODEL)

    asyncio.run(scenario())


def test_after_a_restart_settled_models_wait_and_others_do_not() -> None:
    async def scenario() -> None:
        rig = Rig()
        for name in ("settled", "changed"):
            rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body(name))
        rig.cluster.touch(kinds.FINANCIALMODEL, "quant", "settled", status={"observedGeneration": 1})
        await rig.sync()
        assert rig.queued() == [Key("FinancialModel", "quant", "changed")]
        assert rig.loop.queue.core.next_due() is not None

    asyncio.run(scenario())


def test_no_reconcile_starts_before_everything_is_listed() -> None:
    async def scenario() -> None:
        rig = Rig()
        seen: list[Key] = []

        async def reconcile(key: Key) -> Outcome:
            seen.append(key)
            return Outcome("success")

        running = asyncio.create_task(rig.loop.run(reconcile))  # type: ignore[arg-type]
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body())
        rig.deliver()
        await asyncio.sleep(0)
        assert seen == []
        await rig.sync()
        while not seen:  # noqa: ASYNC110 - each turn of the event loop is a step of it
            await asyncio.sleep(0)
        assert seen == [KEY]
        rig.loop.close()
        await running

    asyncio.run(scenario())


def test_closing_lets_the_reconcile_under_way_finish_and_starts_no_other() -> None:
    async def scenario() -> None:
        rig = Rig(workers=1)
        await rig.sync()
        started, may_end = asyncio.Event(), asyncio.Event()
        finished: list[str] = []

        async def reconcile(key: Key) -> Outcome:
            started.set()
            await may_end.wait()
            finished.append(key.name)
            return Outcome("success")

        running = asyncio.create_task(rig.loop.run(reconcile))  # type: ignore[arg-type]
        for name in ("a", "b"):
            rig.loop.queue.add(Key("FinancialModel", "quant", name))
        await started.wait()
        rig.loop.close()
        may_end.set()
        await running
        assert finished == ["a"]

    asyncio.run(scenario())


def test_a_failing_key_backs_off_alone_and_a_success_forgets_its_failures() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.sync()
        outcomes = iter([Outcome("unavailable", retry_at_least=0.0)] * 3 + [Outcome("success")])
        done = asyncio.Event()

        async def reconcile(key: Key) -> Outcome:
            outcome = next(outcomes)
            if outcome.result == "success":
                done.set()
            return outcome

        running = asyncio.create_task(rig.loop.run(reconcile))  # type: ignore[arg-type]
        rig.loop.queue.add(KEY)
        await done.wait()
        rig.loop.close()
        await running
        assert rig.loop.queue.core.failures(KEY) == 0
        text = rig.metrics.render().decode()
        assert 'controller_runtime_reconcile_total{controller="FinancialModel",result="unavailable"} 3.0' in text
        assert 'workqueue_retries_total{controller="fiduciary",name="fiduciary"} 3.0' in text

    asyncio.run(scenario())


def test_the_sweep_follows_a_relist() -> None:
    async def scenario() -> None:
        rig = Rig(sweep_seconds=3600.0)
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body("kept"))
        rig.cluster.put(kinds.FINANCIALMODEL, toy_judge.body("gone"))
        await rig.sync()
        rig.cluster.remove(kinds.FINANCIALMODEL, "quant", "gone")
        rig.cluster.outbox.clear()
        rig.loop.RELIST = 0.0  # type: ignore[misc]
        sweeping = asyncio.create_task(rig.loop.sweep_forever())
        await asyncio.sleep(0)
        for event in rig.cluster.relist(kinds.FINANCIALMODEL):
            rig.loop.sense(event.resource, event.type, event.body)
        while len(rig.stores.models) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping

    asyncio.run(scenario())


def test_a_model_that_vanished_before_its_claim_is_told_of_like_any_other() -> None:
    """What a claim reads past the mirror must not make the watch's own news old: who waits for it would not hear."""
    clock = Clock()
    cluster = MemoryCluster(clock.now)
    process = Process(cluster, MemoryRegistry(), clock)
    for name in ("m", "rival"):
        body = toy_judge.body(name, suspend=name == "rival")
        cluster.put(kinds.FINANCIALMODEL, {**body, "spec": {**body["spec"], "registry": {"model": "shared"}}})
    process.start()
    queue = process.loop.queue.core
    rival = Key("FinancialModel", "quant", "rival")
    assert [queue.pop(clock.seconds), queue.pop(clock.seconds)] == [(KEY, 0.0), (rival, 0.0)]
    cluster.remove(kinds.FINANCIALMODEL, "quant", "m")
    wait(process.reconcile(KEY))
    for key in (KEY, rival):
        queue.done(key, clock.seconds)
    process.deliver(cluster.outbox.pop())
    told = [queue.pop(clock.seconds), queue.pop(clock.seconds)]
    assert told == [(KEY, 0.0), (rival, 0.0)], "what it leaves in this process is tidied up, and the name is free"
