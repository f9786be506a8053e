"""The work queue: which key is reconciled next, and when.

The bookkeeping (:class:`KeyedQueue`) is pure: it is told the time and never waits, so that a property test can drive
it through any interleaving. :class:`Waiting` adds the one thing that needs an event loop: sleeping until work is due.

Promises, each tested: a key is never handed to two workers at once; an event that arrives while its key is worked on
is worked on afterwards; a key that waits is in the queue once; of several delayed additions the earliest wins; a
fresh change goes before a resync, but resyncs are not starved; a failing key backs off alone, doubling up to a cap.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import heapq
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Hashable

K = TypeVar("K", bound="Hashable")


class Priority(enum.IntEnum):
    """Lower goes first. A resync is a look at something that probably has not changed."""

    CHANGE = 0
    RESYNC = 1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before attempt n+1 after n failures in a row: ``first * 2**(n-1)`` seconds, at most ``limit``."""

    first: float = 0.2
    limit: float = 120.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after ``failures`` (>= 1) failures in a row."""
        return min(self.limit, self.first * 2.0 ** min(failures - 1, 32))


class KeyedQueue(Generic[K]):
    """Bookkeeping of keys that wait, are delayed, or are being worked on. All times are seconds on one clock."""

    #: After so many changes in a row a waiting resync is served: a busy cluster must not stop the sweep's findings.
    FAIRNESS = 16

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._waiting: dict[K, Priority] = {}
        self._lines: tuple[deque[K], deque[K]] = (deque(), deque())
        self._since: dict[K, float] = {}
        self._due: dict[K, tuple[float, Priority]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._tie = 0
        self._running: dict[K, Priority | None] = {}  # the value is the priority of what came in meanwhile
        self._failures: dict[K, int] = {}
        self._changes_in_a_row = 0

    def __len__(self) -> int:
        """Keys that could be worked on now (delayed ones do not count)."""
        return len(self._waiting)

    @property
    def delayed(self) -> int:
        return len(self._due)

    @property
    def running(self) -> int:
        return len(self._running)

    def changed(self, key: K) -> bool:
        """Whether a change of ``key`` came in since it is worked on."""
        return self._running.get(key) == Priority.CHANGE

    def add(self, key: K, now: float, priority: Priority = Priority.CHANGE) -> None:
        """Work on ``key`` as soon as a worker is free; a key that is being worked on is worked on again afterwards."""
        if key in self._running:
            pending = self._running[key]
            self._running[key] = priority if pending is None else min(pending, priority)
            return
        before = self._waiting.get(key)
        if before is not None and before <= priority:
            return
        self._waiting[key] = priority
        self._since.setdefault(key, now)
        # An upgraded key stays in its old line too; `pop` skips the entry whose priority is no longer the key's.
        self._lines[priority].append(key)

    def add_after(self, key: K, due: float, priority: Priority = Priority.RESYNC) -> None:
        """Work on ``key`` at ``due``; an earlier appointment stays, a later one is replaced."""
        before = self._due.get(key)
        if before is not None and before[0] <= due:
            return
        self._due[key] = (due, priority)
        self._tie += 1
        heapq.heappush(self._heap, (due, self._tie, key))

    def fail(self, key: K, now: float, *, at_least: float = 0.0, jitter: float = 1.0) -> float:
        """Count a failure of ``key`` and make an appointment; returns the delay in seconds."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay = max(at_least, self._backoff.delay(failures) * jitter)
        self.add_after(key, now + delay, Priority.CHANGE)
        return delay

    def forget(self, key: K) -> None:
        """The key went well: its next failure starts the backoff anew."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """The object is gone: no appointment, no history. Work that waits or runs is left to find that out."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    def next_due(self) -> float | None:
        """When the earliest appointment is, or None."""
        while self._heap:
            due, _, key = self._heap[0]
            entry = self._due.get(key)
            if entry is not None and entry[0] == due:
                return due
            heapq.heappop(self._heap)  # replaced by an earlier one, or dropped
        return None

    def pop(self, now: float) -> tuple[K, float] | None:
        """Take the next key and how long it waited, or None. The caller must call :meth:`done` with it.

        The key's appointment is cancelled: the reconcile that starts now will make a new one if it needs one.
        """
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._heap)
            _, priority = self._due.pop(key)
            self.add(key, now, priority)
        key = self._take()
        if key is None:
            return None
        del self._waiting[key]
        self._due.pop(key, None)
        self._running[key] = None
        return key, now - self._since.pop(key)

    def done(self, key: K, now: float) -> None:
        """The worker is finished with ``key``; what came in meanwhile is queued now."""
        pending = self._running.pop(key)
        if pending is not None:
            self.add(key, now, pending)

    def _take(self) -> K | None:
        changes, resyncs = self._lines
        resync_turn = self._changes_in_a_row >= self.FAIRNESS
        for priority in (Priority.RESYNC, Priority.CHANGE) if resync_turn else (Priority.CHANGE, Priority.RESYNC):
            line = changes if priority is Priority.CHANGE else resyncs
            while line:
                key = line.popleft()
                if self._waiting.get(key) == priority:
                    self._changes_in_a_row = 0 if priority is Priority.RESYNC else self._changes_in_a_row + 1
                    return key
        return None


class Waiting(Generic[K]):
    """A :class:`KeyedQueue` that one dispatcher can await (many waiting workers would all wake for each key)."""

    def __init__(self, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.core: KeyedQueue[K] = KeyedQueue(backoff)
        self.clock = clock
        self._changed = asyncio.Event()
        self._news: dict[K, asyncio.Event] = {}
        self._closed = False

    def add(self, key: K, priority: Priority = Priority.CHANGE) -> None:
        self.core.add(key, self.clock(), priority)
        self._changed.set()
        if key in self._news and self.core.changed(key):
            self._news[key].set()

    @contextlib.contextmanager
    def news(self, key: K) -> Generator[asyncio.Event]:
        """For who works on ``key`` and waits for something: set once what was observed has changed since."""
        event = self._news[key] = asyncio.Event()
        if self.core.changed(key):
            event.set()
        try:
            yield event
        finally:
            del self._news[key]

    def add_after(self, key: K, seconds: float, priority: Priority = Priority.RESYNC) -> None:
        self.core.add_after(key, self.clock() + max(0.0, seconds), priority)
        self._changed.set()

    def fail(self, key: K, *, at_least: float = 0.0, jitter: float = 1.0) -> float:
        delay = self.core.fail(key, self.clock(), at_least=at_least, jitter=jitter)
        self._changed.set()
        return delay

    def done(self, key: K) -> None:
        self.core.done(key, self.clock())
        self._changed.set()

    def close(self) -> None:
        """Hand out nothing more: each waiting or coming :meth:`take` answers None."""
        self._closed = True
        self._changed.set()

    async def take(self) -> tuple[K, float] | None:
        """The next key and how long it waited in seconds; waits for one. None: the queue was closed."""
        while not self._closed:
            taken = self.core.pop(self.clock())
            if taken is not None:
                return taken
            self._changed.clear()
            due = self.core.next_due()
            if due is None:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout(max(0.0, due - self.clock())):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    async def work_off(self, work: Callable[[K], Awaitable[None]], concurrency: int, lent: float | None = None) -> None:
        """Call ``work`` with each key, ``concurrency`` at most at a time, until :meth:`close`.

        ``lent``: seconds after which a key's place is another's though its work goes on: who waits for an answer that
        does not come keeps nobody from work. What is under way at the end is given up. ``work`` raises nothing: what
        fails makes its next appointment itself.
        """
        slots = asyncio.Semaphore(concurrency)
        running: set[asyncio.Task[None]] = set()

        async def one(key: K) -> None:
            back = contextlib.ExitStack()
            back.callback(slots.release)
            timer = None if lent is None else asyncio.get_running_loop().call_later(lent, back.close)
            try:
                await work(key)
            finally:
                if timer is not None:
                    timer.cancel()
                self.done(key)
                back.close()

        try:
            while True:
                await slots.acquire()
                taken = await self.take()
                if taken is None:
                    return
                task = asyncio.create_task(one(taken[0]))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
