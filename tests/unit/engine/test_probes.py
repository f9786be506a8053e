"""The prober: when a target is asked, what is told of it, and what becomes of it when nobody wants to know any more."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.inference import Answer, Example, NoExample
from fiduciary.engine.metrics import Metrics
from fiduciary.engine.probes import PER_SECOND, Prober
from fiduciary.serving.observed import ProbeTarget
from tests.unit.engine.rig import Clock, wait

if TYPE_CHECKING:
    from collections.abc import Hashable

OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
TARGET = ProbeTarget("Route", "rest", "http://gateway/v2/models/quant.spx", "quant.spx", decision=1, seconds=30)
REFUSED = Answer(False, None, message="connection refused")


def served(digest: str = OLD) -> Answer:
    return Answer(True, 200, "7", digest, latency_s=0.002)


@dataclass
class Servers:
    """What is behind the routes; ``asked`` are the requests that came, with their time."""

    clock: Clock
    answer: Answer = field(default_factory=served)
    no_example: Answer | None = None
    examples: int = 0
    asked: list[float] = field(default_factory=list[float])

    async def example(self, target: ProbeTarget) -> Example:
        self.examples += 1
        if self.no_example is not None:
            raise NoExample(self.no_example)
        return {"inputs": [{"data": [1.0] * 100}]}

    async def infer(self, target: ProbeTarget, example: Example) -> Answer:
        assert example["inputs"][0]["data"] == [1.0] * 100
        self.asked.append(self.clock.seconds)
        return self.answer


class Rig:
    """A prober whose time passes only when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.servers = Servers(self.clock)
        self.changed: list[Hashable] = []
        self.prober = Prober(
            self.servers,
            self.changed.append,
            Metrics(),
            clock=self.clock.monotonic,
            now=self.clock.now,
            jitter=lambda low, high: 1.0,
        )

    def until(self, seconds: float) -> None:
        """Probe whatever is due until then."""
        queue = self.prober.queue.core
        while True:
            taken = queue.pop(self.clock.seconds)
            if taken is not None:
                wait(self.prober.step(taken[0]))
                queue.done(taken[0], self.clock.seconds)
                continue
            due = queue.next_due()
            if due is None or due > seconds:
                break
            self.clock.seconds = due
        self.clock.seconds = seconds


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_new_target_is_asked_at_once_and_then_ever_more_slowly_up_to_its_interval(rig: Rig) -> None:
    rig.prober.aim("m", (TARGET,))
    rig.until(130)
    assert rig.servers.asked == [0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 31.75, 61.75, 91.75, 121.75]
    assert rig.changed == ["m"], "the first answer is news, the same one again is not"


def test_a_change_is_told_and_looked_at_closely(rig: Rig) -> None:
    rig.prober.aim("m", (TARGET,))
    rig.until(100)
    rig.servers.answer, rig.servers.asked = served(NEW), []
    rig.until(130)
    assert rig.servers.asked[:4] == [121.75, 122.0, 122.5, 123.5]
    assert rig.changed == ["m", "m"]
    (view,) = rig.prober.results("m")
    assert (view.digest, view.ok, view.status) == (NEW, True, 200)
    assert view.since is not None
    assert (view.since - rig.clock.now()).total_seconds() == pytest.approx(121.75 - 130)


def test_words_that_change_are_no_change(rig: Rig) -> None:
    rig.servers.answer = REFUSED
    rig.prober.aim("m", (TARGET,))
    rig.until(1)
    rig.servers.answer = replace(REFUSED, message="refused by 10.0.0.2 this time")
    rig.until(60)
    assert rig.changed == ["m"]
    assert [view.message for view in rig.prober.results("m")] == ["connection refused"]


def test_without_an_example_the_reason_is_the_result(rig: Rig) -> None:
    rig.servers.no_example = Answer(False, 404, message="HTTP 404")
    rig.prober.aim("m", (TARGET,))
    rig.until(0)
    assert [(view.ok, view.status) for view in rig.prober.results("m")] == [(False, 404)]
    assert not rig.servers.asked


def test_the_example_is_asked_for_once_while_all_is_well_and_again_after_a_failure(rig: Rig) -> None:
    rig.prober.aim("m", (TARGET,))
    rig.until(10)
    assert rig.servers.examples == 1
    rig.servers.answer = Answer(False, 400, "8", NEW, "HTTP 400")
    rig.until(20)
    rig.servers.answer = served(NEW)
    rig.until(60)
    assert rig.servers.examples == 2 + sum(1 for at in rig.servers.asked if 15.75 < at < 20)
    assert [view.ok for view in rig.prober.results("m")] == [True]


def test_versions_share_their_example_and_leave_nothing_behind(rig: Rig) -> None:
    others = [replace(TARGET, url=f"http://gateway/{n}", decision=n) for n in range(5)]
    for number, target in enumerate(others):
        rig.prober.aim(f"m{number}", (target,))
    rig.until(0)
    assert len(rig.prober._examples) == 1, "the same words are kept once"
    assert len({id(aim.example) for aim in rig.prober._aims.values()}) == 1
    for number in range(5):
        rig.prober.drop(f"m{number}")
    assert not rig.prober._examples
    assert not rig.prober._aims
    assert rig.prober.queue.core.next_due() is None


def test_no_answer_of_another_target_becomes_this_one_s_example(rig: Rig) -> None:
    """Anybody may answer with anybody's digest: what a target is sent comes from its own address alone."""

    sent: dict[str, list[float]] = {}

    class Tenants(Servers):
        async def example(self, target: ProbeTarget) -> Example:
            return {"inputs": [{"data": [666.0 if "mallory" in target.url else 1.0]}]}

        async def infer(self, target: ProbeTarget, example: Example) -> Answer:
            sent[target.url] = example["inputs"][0]["data"]
            return served(OLD)

    rig.prober._client = Tenants(rig.clock)
    mallory = replace(TARGET, url="http://mallory/v2/models/evil.spx", model="evil.spx")
    rig.prober.aim("evil", (mallory,))
    rig.until(1)
    rig.prober.aim("m", (TARGET,))
    rig.until(2)
    assert sent == {mallory.url: [666.0], TARGET.url: [1.0]}


def test_equal_targets_keep_their_result_and_others_are_forgotten(rig: Rig) -> None:
    canary = replace(TARGET, via="Version", digest=NEW)
    rig.prober.aim("m", (TARGET, canary))
    rig.until(5)
    promoted = replace(TARGET, decision=2)
    rig.prober.aim("m", (TARGET, promoted))
    assert [view.target for view in rig.prober.results("m")] == [TARGET]
    asked = len(rig.servers.asked)
    rig.until(5)
    assert len(rig.servers.asked) == asked + 1, "only what is new is asked at once"
    assert [view.target for view in rig.prober.results("m")] == [TARGET, promoted]
    rig.prober.drop("m")
    assert rig.prober.results("m") == ()
    rig.until(1000)
    assert len(rig.servers.asked) == asked + 1


def test_an_answer_that_comes_after_the_target_is_gone_is_dropped(rig: Rig) -> None:
    class Slow(Servers):
        async def infer(self, target: ProbeTarget, example: Example) -> Answer:
            rig.prober.drop("m")
            return await super().infer(target, example)

    rig.prober._client = Slow(rig.clock)
    rig.prober.aim("m", (TARGET,))
    rig.until(100)
    assert rig.prober.results("m") == ()
    assert not rig.changed
    assert rig.prober.queue.core.next_due() is None


def test_an_old_result_is_none_and_is_told_once(rig: Rig) -> None:
    rig.prober.aim("m", (TARGET,))
    rig.until(200)
    rig.changed.clear()
    last = rig.servers.asked[-1]
    rig.clock.seconds = last + 90
    rig.prober.expire()
    assert not rig.changed
    assert len(rig.prober.results("m")) == 1
    rig.clock.seconds = last + 91
    for _ in range(2):
        rig.prober.expire()
    assert rig.changed == ["m"]
    assert rig.prober.results("m") == ()
    rig.until(last + 92)  # the prober is alive again
    assert rig.changed == ["m", "m"]
    assert len(rig.prober.results("m")) == 1


def test_who_was_told_that_a_result_is_too_old_is_told_when_it_is_not(rig: Rig) -> None:
    """The look of a decision may come between the age of a result and the watch over ages."""
    rig.prober.aim("m", (TARGET,))
    rig.until(200)
    rig.changed.clear()
    rig.clock.seconds = 1000
    assert rig.prober.results("m") == ()
    rig.until(1001)
    assert rig.changed == ["m"]
    assert len(rig.prober.results("m")) == 1


def test_many_targets_share_the_time_that_there_is(rig: Rig) -> None:
    number = int(PER_SECOND * 30 * 4)
    for n in range(number):
        rig.prober.aim(n, (replace(TARGET, url=f"http://gateway/{n}"),))
    rig.until(1000)
    rig.servers.asked = []
    rig.until(1240)
    assert len(rig.servers.asked) == pytest.approx(240 * PER_SECOND, rel=0.05)
    assert len(rig.prober.results(0)) == 1, "an interval that has grown makes no result old"


def test_it_asks_a_bounded_number_at_a_time_survives_a_bug_and_ends_with_work_under_way() -> None:
    async def scenario() -> None:
        gate, full, running, most = asyncio.Event(), asyncio.Event(), 0, 0

        class Blocked:
            async def example(self, target: ProbeTarget) -> Example:
                nonlocal running, most
                if target.url == "bug":
                    raise RuntimeError("a bug")
                running += 1
                most = max(most, running)
                if running == 3:
                    full.set()
                await gate.wait()
                running -= 1
                return {}

            async def infer(self, target: ProbeTarget, example: Example) -> Answer:
                if target.url.endswith("9"):
                    await asyncio.Event().wait()
                return served()

        changed: asyncio.Queue[Any] = asyncio.Queue()
        prober = Prober(Blocked(), changed.put_nowait, Metrics(), concurrency=3)
        prober.aim("bug", (replace(TARGET, url="bug"),))
        for n in range(20):
            prober.aim(n, (replace(TARGET, url=f"http://gateway/{n}"),))
        work = asyncio.create_task(prober.run())
        await full.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        gate.set()
        got = {await changed.get() for _ in range(9)}
        assert most == 3
        assert len(got) == 9
        prober.close()
        await asyncio.wait_for(work, 5)

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.timeout(60)
def test_servers_that_do_not_answer_hold_up_no_other() -> None:
    """A NetworkPolicy in somebody's namespace that drops probes must not make everybody else's results old."""

    async def scenario() -> None:
        class Silent:
            async def example(self, target: ProbeTarget) -> Example:
                if target.url.endswith("silent"):
                    await asyncio.Event().wait()
                return {}

            async def infer(self, target: ProbeTarget, example: Example) -> Answer:
                return served()

        answered = asyncio.Event()
        prober = Prober(Silent(), lambda key: answered.set() if key == "mine" else None, Metrics(), concurrency=4)
        for n in range(20):
            prober.aim(n, (replace(TARGET, url=f"http://{n}/silent"),))
        prober.aim("mine", (TARGET,))
        work = asyncio.create_task(prober.run())
        await asyncio.wait_for(answered.wait(), 30)
        prober.close()
        await asyncio.wait_for(work, 5)

    asyncio.run(scenario())


def test_a_server_that_answers_every_other_time_is_asked_ever_more_slowly(rig: Rig) -> None:
    """One of two pods is broken and says that it is ready: each change is a write of a status and an event."""
    answers = itertools.cycle((served(), Answer(False, 500, message="HTTP 500")))

    async def infer(target: ProbeTarget, example: Example) -> Answer:
        rig.servers.asked.append(rig.clock.seconds)
        return next(answers)

    rig.servers.infer = infer  # type: ignore[method-assign]
    rig.prober.aim("m", (TARGET,))
    rig.until(3)
    assert len(rig.changed) >= 5, "the first changes are looked at closely"
    rig.until(600)
    assert len(rig.changed) < 40

    rig.servers.infer = Servers.infer.__get__(rig.servers)  # type: ignore[method-assign]
    rig.until(900)
    rig.servers.answer, rig.changed[:], rig.servers.asked = served(NEW), [], []
    rig.until(960)
    assert rig.changed == ["m"]
    assert rig.servers.asked[1] - rig.servers.asked[0] == pytest.approx(0.25), "it has been calm for a while"
