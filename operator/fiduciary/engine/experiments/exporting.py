"""Folded blocks to the export sink (protocols.md §1), beside the decisions and never before them.

A reconcile hands its lines over and waits for a moment only, so that they are usually written before the status that
rests on them. A sink that is full, slow or away costs lines once :data:`MOST` of them wait, and no decision; what was
lost is counted and told in a condition.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.decide.experiment.world import Exported

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

log = structlog.get_logger(part="exporting")

#: Lines that wait, of all experiments: about 10 MB.
MOST = 10_000
#: Seconds that a reconcile waits for a sink that is well.
PATIENCE = 1.0
#: Seconds after which a write is said to hang.
SLOW = 10.0
#: Seconds until a sink that refused is tried again.
PAUSE = 5.0


class Sink(Protocol):
    """What is asked of :class:`fiduciary.clients.exports.Files`."""

    def append(self, name: str, lines: Sequence[str]) -> None: ...


@dataclass(eq=False, slots=True)
class _Told:
    file: str
    waiting: int = 0
    lost: int = 0


class Exporter:
    """``changed`` is told the keys of which something else is to be said. One write is under way at any time."""

    def __init__(self, sink: Sink, changed: Callable[[Hashable], None]) -> None:
        self._sink = sink
        self._changed = changed
        self._lines: deque[tuple[Hashable, str, str]] = deque()
        self._told: dict[Hashable, _Told] = {}
        self._why = ""
        self._more, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")

    async def put(self, key: Hashable, file: str, lines: Sequence[str]) -> None:
        """Have these lines written; returns when they are, or after a moment."""
        told = self._told.setdefault(key, _Told(file))
        room = max(0, MOST - len(self._lines))
        told.lost += len(lines) - len(lines[:room])
        told.waiting += len(lines[:room])
        self._lines.extend((key, file, line) for line in lines[:room])
        if not self._lines:
            return
        self._empty.clear()
        self._more.set()
        if not self._why:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._empty.wait()
            except TimeoutError:
                pass  # decisions do not wait for it

    def state(self, key: Hashable, file: str) -> Exported:
        """What there is to say of an experiment's export."""
        told = self._told.get(key) or _Told(file)
        return Exported(told.file, told.waiting, told.lost, self._why)

    def drop(self, key: Hashable) -> None:
        """Nothing is said of it any more; what waits is still written."""
        self._told.pop(key, None)

    def close(self) -> None:
        self._closed = True
        self._more.set()

    async def run(self) -> None:
        """Write until :meth:`close`, and then what waits if the sink takes it."""
        try:
            while not self._closed:
                await self._more.wait()
                self._more.clear()
                while self._lines and not self._closed:
                    if not await self._write() and not self._closed:
                        await asyncio.sleep(PAUSE)
            if not self._why:
                await self._write()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write(self) -> bool:
        """Everything that waits for the file of the first line; whether it was written."""
        if not self._lines:
            return True
        file = self._lines[0][1]
        some = [entry for entry in self._lines if entry[1] == file]
        future = self._thread.submit(self._sink.append, file, [line for _, _, line in some])
        try:
            await self._done(future)
        except OSError as error:
            self._say(f"{error.strerror or type(error).__name__} ({file})")
            return False
        written = {id(entry) for entry in some}
        self._lines = deque(entry for entry in self._lines if id(entry) not in written)
        for key, _, _ in some:
            if (told := self._told.get(key)) is not None:
                told.waiting -= 1
        self._say("")
        if not self._lines:
            self._empty.set()
        return True

    async def _done(self, future: Future[None]) -> None:
        """Wait, however long it takes: another write behind one that hangs would hang, too."""
        waiting = asyncio.wrap_future(future)
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=SLOW)
            if done:
                await waiting
                return
            self._say(f"a write has not come back for {SLOW:g} s")
            if self._closed:
                raise TimeoutError

    def _say(self, why: str) -> None:
        if bool(why) != bool(self._why):
            log.warning("export.failing", why=why) if why else log.info("export.well")
            for key in tuple(self._told):
                self._changed(key)
        self._why = why
