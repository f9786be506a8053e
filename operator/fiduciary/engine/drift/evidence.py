"""The evidence of a window: all counts at its end, and the values of its monitors' queries at the same moment.

All of it or nothing: a Prometheus that goes away between the counts and a query has not said that the query has no
value, so that the whole window waits, and is read once more. Only a query that finds no answer again and again, while
everything else is answered, has no value: it must not keep the histograms of its policy from being judged.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from fiduciary.decide.drift.world import QueryValue
from fiduciary.engine.drift.asking import BUG
from fiduciary.engine.drift.counted import Closing, Unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fiduciary.engine.drift.asking import Asker
    from fiduciary.engine.drift.counted import Aim

log = structlog.get_logger(part="drift")

#: Queries of monitors that are under way at once, one a policy.
MOST_QUERIES = 8
#: Seconds in which they are waited for; those of a slow one go on, and its policy alone waits for them.
PATIENCE = 1.0
#: Times that a query is asked for its value at one moment.
MOST_TRIES = 3


class Values:
    """Completes windows whose counts are read. ``completed`` is told of each policy whose queries are answered."""

    def __init__(self, asker: Asker, completed: Callable[[Aim], None]) -> None:
        self._asker = asker
        self._completed = completed
        self._turns = asyncio.Semaphore(MOST_QUERIES)
        self._slow: set[asyncio.Task[None]] = set()

    async def complete(self, aims: Iterable[Aim]) -> None:
        """Queries are users' own: what one of them takes is for its policy alone to wait for."""
        tasks = [asyncio.create_task(self._complete(aim)) for aim in aims]
        if not tasks:
            return
        _, slow = await asyncio.wait(tasks, timeout=PATIENCE)
        self._slow |= slow
        for task in slow:
            task.add_done_callback(self._slow.discard)

    def close(self) -> None:
        for task in self._slow:
            task.cancel()

    async def _complete(self, aim: Aim) -> None:
        try:
            await self._closings(aim)
        except Exception:
            log.exception("drift.bug", key=str(aim.key))
            _none(aim, aim.half[0][0], BUG)
        aim.half.clear()
        self._completed(aim)

    async def _closings(self, aim: Aim) -> None:
        """Appended one by one, up to the first that is not whole."""
        for moment, reading in aim.half:
            values = await self._values(aim, moment)
            if isinstance(values, Unseen):
                _none(aim, moment, values)
                return
            aim.counted = replace(aim.counted, closings=(*aim.counted.closings, Closing(moment, reading, values)))

    async def _values(self, aim: Aim, moment: int) -> tuple[QueryValue, ...] | Unseen:
        values: list[QueryValue] = []
        for name, text in aim.want.queries:
            async with self._turns:
                value = await self._asker.value(name, text, moment)
            if isinstance(value, Unseen):
                times = aim.tried[1] + 1 if aim.tried[0] == moment else 1
                aim.tried = (moment, times)
                if times < MOST_TRIES:
                    return Unseen(value.reason, f"query of monitor {name}: {value.message}")
                told = f"{value.reason}: {value.message}; asked {times} times, while its counts were answered"
                value = QueryValue(name, moment, None, told)
            values.append(value)
        return tuple(values)


def _none(aim: Aim, moment: int, why: Unseen) -> None:
    aim.again(moment)
    aim.counted = replace(aim.counted, error=why)
