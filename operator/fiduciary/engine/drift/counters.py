"""Asking Prometheus for all drift policies together: how many rows there are, and all counts where a window ends.

A reconcile says what its policy wants counted (:meth:`Counters.aim`) and takes what was answered since
(:meth:`Counters.results`). Rows of all versions are asked for at the same moments, with one query; where they say that
a window has ended (``ends``), everything is read at that moment (``evidence``). So windows are the same whoever looks
when, and a policy that nobody could look at is caught up with window by window.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from fiduciary.decide.counters.batches import MOST_SAMPLES
from fiduciary.decide.drift.state import Reading
from fiduciary.engine.drift.asking import BUG, Asker
from fiduciary.engine.drift.counted import Aim, Closing, Counted, Unseen
from fiduciary.engine.drift.ends import Ends
from fiduciary.engine.drift.evidence import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Mapping, Sequence

    from fiduciary.decide.drift.series import Latest, Place
    from fiduciary.engine.drift.asking import Client
    from fiduciary.engine.drift.counted import Scrapes, Want
    from fiduciary.engine.metrics import Metrics

    Answers = Mapping[Place, Latest | Unseen]

log = structlog.get_logger(part="drift")

#: Scrape intervals between two questions: a day's row is no news that anybody waits for.
EVERY = 4
#: Milliseconds until what is left of a long past is asked for.
SOON = 200
#: Versions in one query: of their rows, and of everything that is counted of them (some 250 series, 35 KB each).
MOST_ROWS, MOST_COUNTS = 1_000, 250


class Counters:
    """``changed`` is told the keys of which there is news: ends of windows, a first answer, an error, its end."""

    def __init__(
        self,
        client: Client,
        scrapes: Scrapes,
        changed: Callable[[Hashable], None],
        metrics: Metrics,
        *,
        now: Callable[[], int] = lambda: round(time.time() * 1000),
        most: int = MOST_SAMPLES,
    ) -> None:
        self.scrapes = scrapes
        self._asker = Asker(client, scrapes, metrics)
        self._values = Values(self._asker, self._completed)
        self._changed = changed
        self._now = now
        self._most = most
        self._aims: dict[Hashable, Aim] = {}
        self._nudge = asyncio.Event()
        self._closed = False
        metrics.watch_policies(lambda: len(self._aims))

    def aim(self, key: Hashable, want: Want | None) -> None:
        """What ``key`` wants counted from now on. Ends of windows that it has folded are forgotten."""
        if want is None:
            self._aims.pop(key, None)
            return
        aim = self._aims.get(key)
        if aim is None or (aim.want.watched, aim.want.grid, aim.want.queries) != (
            want.watched, want.grid, want.queries,
        ):  # fmt: skip
            self._aims[key] = Aim(key, want)
            self._nudge.set()
            return
        aim.want = want
        left = tuple(its for its in aim.counted.closings if its.at > want.since)
        if len(left) != len(aim.counted.closings):
            aim.counted = replace(aim.counted, closings=left)
            self._nudge.set()

    def drop(self, key: Hashable) -> None:
        self.aim(key, None)

    def results(self, key: Hashable) -> Counted | None:
        """What is known; None before the first answer."""
        aim = self._aims.get(key)
        return aim.counted if aim is not None and aim.answered else None

    def close(self) -> None:
        self._closed = True
        self._nudge.set()
        self._values.close()

    async def run(self) -> None:
        """Ask until :meth:`close`."""
        while not self._closed:
            self._nudge.clear()
            at = self.next_due()
            # Policies that are seen at the same moment, as after a restart, are asked about together.
            wait = None if at is None else max(SOON, at - self._now()) / 1000
            try:
                async with asyncio.timeout(wait):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            else:
                continue  # somebody wants something else now
            try:
                await self.ask()
            except Exception:
                log.exception("drift.bug")  # of the round itself; what one policy counts ends no round
                await asyncio.sleep(self.scrapes.seconds)

    def next_due(self) -> int | None:
        """When the next question is due, ms; None where nothing is watched."""
        return min((self._due(aim) for aim in self._aims.values() if not aim.half), default=None)

    def _due(self, aim: Aim) -> int:
        if not aim.asked:
            return 0
        if aim.counted.behind and aim.counted.error is None and not aim.counted.closings:
            return aim.asked + self.scrapes.settled + SOON  # the rest, once what was read is folded
        every, settled = EVERY * self.scrapes.step, self.scrapes.settled
        polled = (aim.asked // every + 1) * every + settled
        length = aim.want.grid.length
        if not length or aim.counted.error is not None:
            return polled
        return max((aim.asked // length + 1) * length + settled, aim.asked + settled + SOON)

    async def ask(self) -> None:
        """Ask for everything that is due now, in as few queries as may be."""
        now = self._now()
        aims = [aim for aim in self._aims.values() if not aim.half and self._due(aim) <= now]
        if not aims:
            return
        at = (now - self.scrapes.settled) // self.scrapes.step * self.scrapes.step
        for aim in aims:
            aim.before = aim.counted if aim.answered else None
        await self._rows(aims, at)
        ends = Ends()
        for aim in _seeing(aims):
            with _alone(aim):
                ends.look(aim, at)
        await self._search(ends, at)
        for moment in sorted(ends.moments):
            await self._read(moment, _seeing(ends.moments[moment]))
        for aim in aims:
            aim.asked = at
            if not aim.half:
                self._tell(aim)
        await self._values.complete(aim for aim in aims if aim.half)

    def _completed(self, aim: Aim) -> None:
        self._tell(aim)
        self._nudge.set()

    def _tell(self, aim: Aim) -> None:
        aim.answered = True
        if self._aims.get(aim.key) is aim and _news(aim.key, aim.before or Counted(), aim.counted, aim.before is None):
            self._changed(aim.key)

    async def _rows(self, aims: Sequence[Aim], at: int) -> None:
        """Newest samples of the row counters, each version's once."""
        found: dict[Place, Latest | Unseen] = {}
        watched = list({aim.want.watched.place: aim.want.watched for aim in aims}.values())
        for start in range(0, len(watched), MOST_ROWS):
            part = watched[start : start + MOST_ROWS]
            found |= await self._asker.latest(part, at)
        for aim in aims:
            with _alone(aim):
                self._latest(aim, found, at)

    def _latest(self, aim: Aim, found: Answers, at: int) -> None:
        answer = found.get(aim.want.watched.place)
        if isinstance(answer, Unseen):
            aim.counted = replace(aim.counted, error=answer)
            return
        aim.counted = Counted(
            aim.counted.closings,
            # A scorer that is away counts over the same edges as before.
            aim.counted.latest if answer is None else Reading(at, answer.rows),
            aim.counted.reference if answer is None else answer.reference,
            aim.counted.behind,
        )

    async def _search(self, ends: Ends, at: int) -> None:
        """The moments in the samples since the last look, with one query for all who looked at the same time."""
        together: dict[tuple[int, int], list[Aim]] = {}
        for aim in ends.searched:
            stretch = max(EVERY, self._most // len(ends.searched)) * self.scrapes.step * aim.stretch
            together.setdefault((aim.since, min(at, aim.since + stretch)), []).append(aim)
        for (since, until), part in together.items():
            for start in range(0, len(part), MOST_ROWS):
                few = part[start : start + MOST_ROWS]
                watched = [aim.want.watched for aim in few]
                # What is shown at the first moment may have been scraped before it.
                found = await self._asker.rows(watched, until - since + self.scrapes.reach, until)
                for aim in few:
                    answer = found.get(aim.want.watched.place, [])
                    if isinstance(answer, Unseen):
                        aim.counted = replace(aim.counted, error=answer)
                        continue
                    with _alone(aim):
                        ends.found(aim, answer, since, until, at, self.scrapes)

    async def _read(self, moment: int, aims: Sequence[Aim]) -> None:
        """All counts at one moment."""
        for start in range(0, len(aims), MOST_COUNTS):
            part = aims[start : start + MOST_COUNTS]
            watched = [aim.want.watched for aim in part]
            found = await self._asker.counts(watched, moment)
            for aim in part:
                reading = found.get(aim.want.watched.place)
                if isinstance(reading, Unseen):
                    aim.again(moment)
                    aim.counted = replace(aim.counted, error=reading)
                elif aim.want.queries:
                    aim.half.append((moment, reading))
                elif reading is not None:
                    closing = Closing(moment, reading)
                    aim.counted = replace(aim.counted, closings=(*aim.counted.closings, closing))


def _news(key: Hashable, before: Counted, after: Counted, first: bool) -> bool:
    was, now = (None if its.error is None else its.error.reason for its in (before, after))
    if after.error is not None and now != was:
        log.warning("drift.unseen", key=str(key), reason=now, why=after.error.message)
    return (
        first
        or now != was
        or after.reference != before.reference
        or (bool(after.closings) and after.closings != before.closings)
    )


def _seeing(aims: Sequence[Aim]) -> list[Aim]:
    return [aim for aim in aims if aim.counted.error is None]


@contextmanager
def _alone(aim: Aim) -> Generator[None]:
    """What goes wrong with the counts of one policy is said of it, and ends nobody else's."""
    try:
        yield
    except Exception:
        log.exception("drift.bug", key=str(aim.key))
        aim.counted = replace(aim.counted, error=BUG)
