"""The queue against a model of its promises, driven through any interleaving with a clock that the test turns."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fiduciary.engine.queue import Backoff, KeyedQueue, Priority, Waiting

KEYS = st.sampled_from("abcde")
PRIORITIES = st.sampled_from(Priority)


class QueueMachine(RuleBasedStateMachine):
    """``owed`` is what the queue has promised to hand out: it must come, once, and not while it runs."""

    @initialize()
    def start(self) -> None:
        self.queue: KeyedQueue[str] = KeyedQueue(Backoff(first=1.0, limit=8.0))
        self.now = 0.0
        self.owed: dict[str, Priority] = {}
        self.again: set[str] = set()
        self.running: set[str] = set()
        self.due: dict[str, float] = {}
        self.failures: dict[str, int] = {}

    @rule(key=KEYS, priority=PRIORITIES)
    def add(self, key: str, priority: Priority) -> None:
        self.queue.add(key, self.now, priority)
        if key in self.running:
            self.again.add(key)
        else:
            self.owed[key] = min(priority, self.owed.get(key, priority))

    @rule(key=KEYS, delay=st.floats(0, 20))
    def add_after(self, key: str, delay: float) -> None:
        self.queue.add_after(key, self.now + delay)
        self.due[key] = min(self.due.get(key, float("inf")), self.now + delay)

    @rule(key=KEYS)
    def fail(self, key: str) -> None:
        delay = self.queue.fail(key, self.now)
        self.failures[key] = self.failures.get(key, 0) + 1
        assert delay == min(8.0, 2.0 ** (self.failures[key] - 1))
        self.due[key] = min(self.due.get(key, float("inf")), self.now + delay)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.failures.pop(key, None)

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        self.queue.drop(key)
        self.failures.pop(key, None)
        self.due.pop(key, None)

    @rule(seconds=st.floats(0.1, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def pop(self) -> None:
        for key, due in list(self.due.items()):
            if due <= self.now:
                del self.due[key]
                if key in self.running:
                    self.again.add(key)
                else:
                    self.owed.setdefault(key, Priority.RESYNC)
        taken = self.queue.pop(self.now)
        if taken is None:
            assert not self.owed
            return
        key, waited = taken
        assert key in self.owed, "handed out what nobody asked for"
        assert key not in self.running, "handed out twice at once"
        assert waited >= 0.0
        del self.owed[key]
        self.due.pop(key, None)
        self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key, self.now)
        self.running.discard(key)
        if key in self.again:
            self.again.discard(key)
            self.owed[key] = Priority.CHANGE

    @invariant()
    def counts_agree(self) -> None:
        overdue = {key for key, due in self.due.items() if due <= self.now}
        assert len(self.queue) == len(self.owed)
        assert self.queue.running == len(self.running)
        assert self.queue.delayed == len(self.due)
        assert not overdue or (self.queue.next_due() or 0) <= self.now


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestQueue = QueueMachine.TestCase


def drained(queue: KeyedQueue[str], now: float = 0.0) -> list[str]:
    order = []
    while (taken := queue.pop(now)) is not None:
        order.append(taken[0])
        queue.done(taken[0], now)
    return order


def test_a_change_goes_before_resyncs_and_an_upgrade_moves_a_waiting_key() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for key in ("r1", "r2", "r3"):
        queue.add(key, 0.0, Priority.RESYNC)
    queue.add("c", 0.0, Priority.CHANGE)
    queue.add("r3", 0.0, Priority.CHANGE)
    assert drained(queue) == ["c", "r3", "r1", "r2"]


def test_resyncs_are_not_starved_by_a_stream_of_changes() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("resync", 0.0, Priority.RESYNC)
    served = []
    for number in range(40):
        queue.add(f"c{number}", 0.0)
        taken = queue.pop(0.0)
        assert taken is not None
        served.append(taken[0])
        queue.done(taken[0], 0.0)
    assert served.index("resync") == KeyedQueue.FAIRNESS


def test_starting_on_a_key_cancels_its_appointment() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 10.0)
    queue.add("a", 0.0)
    assert drained(queue) == ["a"]
    assert queue.next_due() is None


def test_a_dirty_key_keeps_the_more_urgent_priority() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a", 0.0)
    assert queue.pop(0.0) == ("a", 0.0)
    queue.add("a", 1.0, Priority.CHANGE)
    queue.add("a", 1.0, Priority.RESYNC)
    queue.add("r", 1.0, Priority.RESYNC)
    queue.done("a", 1.0)
    assert drained(queue, 1.0) == ["a", "r"]


def test_waiting_hands_out_what_becomes_due_and_ends_when_closed() -> None:
    async def scenario() -> list[str | None]:
        queue: Waiting[str] = Waiting()
        queue.add_after("late", 0.02)
        queue.add("now")
        results: list[str | None] = []
        for _ in range(2):
            taken = await queue.take()
            assert taken is not None
            results.append(taken[0])
            queue.done(taken[0])
        asyncio.get_running_loop().call_soon(queue.close)
        results.append(await queue.take())
        return results

    assert asyncio.run(scenario()) == ["now", "late", None]
