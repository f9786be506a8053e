"""The one thread that writes: what is queued is applied in one transaction and answered after its commit."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.cleaning import clean
from fiduciary_outcomes.closing import close_due, next_due
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.logs import log
from fiduciary_outcomes.sql import FAILURES, Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary_outcomes.memory import Memory

GROUP = 5_000
"""Records of one transaction: some 50 ms, so that nobody waits long for its turn."""

PAUSE = 1.0
"""Seconds between attempts on a store that fails."""

CLEANING = 3600.0


class Full(Exception):
    """More is waiting than may wait; the sender should come back."""


@dataclass
class Work:
    """One change, or one look at memory between two changes.

    Attributes:
        weight: records in it.
        done: set after the commit.
    """

    apply: Callable[[Memory], Any]
    weight: int
    changes: bool
    done: Future[Any] = field(default_factory=lambda: Future[Any]())

    def deliver(self, result: object) -> None:
        """Once; whoever asked may have gone away meanwhile."""
        if self.done.done() or not self.done.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


class Writer:
    """Owns the memory and the writing connection.

    Args:
        open_memory: opens the store; raises :class:`Busy` while another process has it.
        clock: seconds since 1970.
        most_waiting: records that may wait.
        retention: seconds that predictions and outcomes are kept.
    """

    def __init__(
        self, open_memory: Callable[[], Memory], clock: Callable[[], float], most_waiting: int, retention: float
    ) -> None:
        self._open_memory, self._clock = open_memory, clock
        self._most_waiting, self._retention = most_waiting, retention
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._waiting = 0
        self._guard = threading.Lock()
        self._next_cleaning = 0.0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.commits = 0
        self.closed = 0
        self.ready = False
        self.failure: BaseException | None = None
        self.ended: Future[None] = Future()

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that wait for their commit."""
        return self._waiting

    def submit(self, apply: Callable[[Memory], Any], weight: int = 1, *, changes: bool = True) -> Future[Any]:
        """Queue a change; the future holds its result once it is on the disk.

        Raises:
            Full: too much is waiting already, or the store is not open.
        """
        if not self.ready:
            raise Full
        work = Work(apply, max(1, weight), changes)
        with self._guard:
            if self._waiting and self._waiting + work.weight > self._most_waiting:
                raise Full
            self._waiting += work.weight
        self._queue.put(work)
        return work.done

    def stop(self) -> None:
        """End after what is queued."""
        self._queue.put(None)

    def _run(self) -> None:
        try:
            memory = self._opened()
            if memory is not None:
                self.ready = True
                self._loop(memory)
                memory.db.close()
        except BaseException as error:
            self.failure = error
            log("error", "the writer ended", error=error)
        finally:
            self.ready = False
            self._refuse_rest()
            self.ended.set_result(None)

    def _opened(self) -> Memory | None:
        said = ""
        while True:
            try:
                return self._open_memory()
            except (Busy, *FAILURES) as error:
                if said != str(error):
                    log("warning", "the store cannot be opened yet", error=error)
                    said = str(error)
                if self._told_to_stop():
                    return None

    def _told_to_stop(self) -> bool:
        """Wait a moment; whether the process ends meanwhile. Nothing else is queued before the store is open."""
        try:
            return self._queue.get(timeout=PAUSE) is None
        except queue.Empty:
            return False

    def _loop(self, memory: Memory) -> None:
        stopping = False
        failing = False
        group: list[Work] = []
        while not stopping:
            if not group:
                group, stopping = self._group(PAUSE if failing else self._until_due(memory))
            try:
                self._tick(memory)
                self._apply(memory, group)
                failing = False
            except FAILURES as error:
                # What was asked for is not lost with a full disk: its sender hears of it and comes again.
                log("error", "the store cannot be written", error=error)
                failing = True
                for work in group:
                    work.deliver(error)
                self._check_connection(memory)
            finally:
                # Nobody waits for a writer that has ended; what was answered stays answered.
                for work in group:
                    work.deliver(Full())
                self._release(group)
            group = []

    def _check_connection(self, memory: Memory) -> None:
        """Raises what a lost connection raises: another scorer may hold the lock by then, so this one ends."""
        memory.db.execute("SELECT 1")
        memory.load()

    def _until_due(self, memory: Memory) -> float:
        return min(max(0.0, next_due(memory) - self._clock()), 60.0)

    def _group(self, wait: float) -> tuple[list[Work], bool]:
        group: list[Work] = []
        weight = 0
        try:
            item = self._queue.get(timeout=wait) if wait > 0.0 else self._queue.get_nowait()
            while True:
                if item is None:
                    return group, True
                group.append(item)
                weight += item.weight
                if weight >= GROUP:
                    return group, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return group, False

    def _tick(self, memory: Memory) -> None:
        """What the clock asks for: sessions that are over are closed before anything else is taken."""
        now = self._clock()
        self.closed += close_due(memory, now)
        if now >= self._next_cleaning:
            with memory.transaction():
                clean(memory, now, self._retention)
            self._next_cleaning = now + CLEANING

    def _apply(self, memory: Memory, group: list[Work]) -> None:
        changes = [work for work in group if work.changes]
        if changes:
            results = self._together(memory, changes)
            for work, result in zip(changes, results, strict=True):
                work.deliver(result)
            # a replay's outcomes move its ledgers' own clock
            self.closed += close_due(memory, self._clock())
        for work in group:
            if not work.changes:
                work.deliver(_look(memory, work))

    def _together(self, memory: Memory, changes: list[Work]) -> list[Any]:
        """All in one transaction; each in its own where one of them fails in a way that nobody foresaw."""
        try:
            with memory.transaction():
                results = [_attempt(memory, work) for work in changes]
            self.commits += 1
            return results
        except FAILURES:
            raise
        except Exception as error:
            if len(changes) == 1:
                log("error", "a change failed", error=error)
                return [error]
            return [result for work in changes for result in self._together(memory, [work])]

    def _release(self, group: list[Work]) -> None:
        with self._guard:
            self._waiting -= sum(work.weight for work in group)

    def _refuse_rest(self) -> None:
        while True:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work.deliver(Full())


def _look(memory: Memory, work: Work) -> Any:
    """Whatever it finds, even that it cannot: looking harms nobody else."""
    try:
        return work.apply(memory)
    except Exception as error:
        return error


def _attempt(memory: Memory, work: Work) -> Any:
    """A refusal changes nothing, so the others of the transaction stay."""
    try:
        return work.apply(memory)
    except Refused as refused:
        return refused
