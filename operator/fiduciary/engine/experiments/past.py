"""The champion before the experiment: seven days of its blocks, or all since it was trained, read in stretches and
counted as live blocks are.

How much its rates vary is fixed when an experiment starts (statistics.md rule 3), so they are read before the first
step. Nothing of it is stored: what the start takes from it is in the terms and the evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.batches import Need, queries
from fiduciary.decide.counters.blocks import START, Samples, read
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.experiment.times import first_edge
from fiduciary.decide.experiment.world import TRANSPORT, History
from fiduciary.engine.experiments.asking import SPOILT, counted
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from fiduciary.decide.counters.plan import Plan
    from fiduciary.decide.counters.state import Counters
    from fiduciary.decide.counters.templates import Workload
    from fiduciary.decide.counters.tracks import Track
    from fiduciary.decide.experiment.world import ClosedBlock
    from fiduciary.engine.experiments.asking import Client, Sources
    from fiduciary.engine.metrics import Metrics

log = structlog.get_logger(part="past")

DAYS = 7
DAY = 86_400
#: Samples of one answer: a twentieth of a second of work.
MOST_SAMPLES = 15_000
#: What ended longer ago, in seconds, is not the present any more: it is read on.
FRESH = 1_800
#: Milliseconds until a question that failed is asked again.
AGAIN = 15_000
#: Usual stretches in one question: where shorter ones close nothing, and where there has been nothing at all so far.
LONGEST, EMPTY = 1_024, 16
SHORTEST = 1 / 64
"""And the least part of one, where even that is too much for an answer: a champion may have many pods."""
ALONE = (Change(0, 0, 0, 0),)
"""Before an experiment nothing is split and nothing is copied."""


@dataclass(frozen=True, slots=True)
class Past:
    """How far one champion is read, and what was counted; ``plan``: with an origin seven days back."""

    plan: Plan
    champion: Workload
    counters: Counters = START
    histories: tuple[History, ...] = ()
    looked: int = 0  # up to here there is nothing more that could be counted, ms
    reach: float = 1.0
    error: str = ""

    @classmethod
    def begin(cls, plan: Plan, champion: Workload, now: int, born: int = 0) -> Past:
        """``born``: before then (ms) nothing of it can have been counted."""
        names = [test.measure.name for test in plan.guardrails] + ([TRANSPORT] if plan.source == "Gateway" else [])
        since = max(now // 1000 - DAYS * DAY, min(born, now) // 1000 - plan.block)
        plan = replace(plan, origin=first_edge(since, plan.block), breakers=())
        nothing = tuple(History(name, Counts(0, 0), Dispersion.start(block=plan.block)) for name in names)
        return cls(plan, champion, histories=nothing)

    @property
    def through(self) -> int:
        """End of what was counted, ms."""
        return self.plan.edge(self.counters.last)

    def missing(self, now: int) -> int:
        """Seconds that are still to be read; 0: it reaches up to now, or nearly so."""
        left = self.behind(now)
        return left if left > FRESH else 0

    def behind(self, now: int) -> int:
        """Seconds up to the last settled edge."""
        return max(0, (self.plan.edge(self.plan.closable(now)) - max(self.through, self.looked)) // 1000)

    def with_samples(self, streams: Mapping[str, Mapping[str, Track]], until: int) -> Past:
        """With every block that closes by ``until`` (ms)."""
        if not streams and self.counters.last < 0:
            return self.later(until)  # it did not run then, or nobody scraped it: its past begins after that
        reading = read(self.plan, self.counters, Samples(champion=streams), ALONE, until)
        histories = self.histories
        for block in reading.blocks:
            histories = tuple(_with(history, block) for history in histories)
        reach = min(self.reach, 1.0) if reading.blocks else min(2.0 * self.reach, LONGEST)
        return replace(self, counters=reading.state, histories=histories, looked=until, reach=reach, error="")

    def later(self, until: int) -> Past:
        """From before ``until`` (ms) on, with nothing of before that."""
        plan = self.plan
        origin = first_edge((until - 2 * plan.clock.before) // 1000 - plan.block, plan.block)
        begun = Past.begin(plan, self.champion, (max(origin, plan.origin + plan.block) + DAYS * DAY) * 1000)
        return replace(begun, reach=min(2 * self.reach, EMPTY))

    def history(self) -> tuple[History, ...]:
        """As the experiment takes it: its last block is block -1."""
        return tuple(replace(one, dispersion=replace(one.dispersion, last=-1)) for one in self.histories)


def _with(history: History, block: ClosedBlock) -> History:
    counts = next(test.champion for test in block.tests if test.name == history.name)
    dispersion = history.dispersion.fold(block.first, block.last, counts)
    if isinstance(dispersion, Refusal):  # more requests than one estimate can hold: what was counted stands
        return history
    known = history.counts
    return History(history.name, Counts(known.trials + counts.trials, known.bad + counts.bad), dispersion)


class Pasts:
    """Reads one stretch after the other; ``changed`` is told the key whose champion is read."""

    def __init__(
        self,
        client: Client,
        sources: Sources,
        changed: Callable[[Hashable], None],
        metrics: Metrics,
        *,
        now: Callable[[], int] = lambda: round(time.time() * 1000),
        most: int = MOST_SAMPLES,
    ) -> None:
        self._client = client
        self._sources = sources
        self._changed = changed
        self._metrics = metrics
        self._now = now
        self._most = most
        self._pasts: dict[Hashable, Past] = {}
        self._again = 0  # when anybody is asked about, ms
        self._later: dict[Hashable, int] = {}  # and who only later
        self._line: deque[Hashable] = deque()
        self._nudge = asyncio.Event()
        self._closed = False

    def aim(self, key: Hashable, plan: Plan, champion: Workload, born: int = 0) -> None:
        """Read this champion's past since ``born`` (ms), as the plan counts it; its origin does not matter."""
        known = self._pasts.get(key)
        if known is not None and known.champion == champion and _same(known.plan, plan):
            if known.missing(self._now()) and key not in self._line:
                self._line.append(key)
                self._nudge.set()
            return
        self._pasts[key] = Past.begin(plan, champion, self._now(), born)
        if key not in self._line:
            self._line.append(key)
        self._nudge.set()

    def drop(self, key: Hashable) -> None:
        self._pasts.pop(key, None)
        self._later.pop(key, None)
        if key in self._line:
            self._line.remove(key)

    def next_due(self) -> int | None:
        """When to read on, ms; None where every champion is read."""
        if not self._line:
            return None
        return max(self._again, min(self._later.get(key, 0) for key in self._line))

    def history(self, key: Hashable) -> tuple[History, ...]:
        """What was read so far."""
        past = self._pasts.get(key)
        return () if past is None else past.history()

    def unread(self, key: Hashable) -> str:
        """What is missing, in words; empty: nothing."""
        past = self._pasts.get(key)
        if past is None:
            return "not begun"
        left = past.missing(self._now())
        if not left:
            return ""
        return past.error or f"{left / 3600:.0f} of {DAYS * 24} hours are left"

    def unanswered(self, key: Hashable) -> str:
        """Why the last question had no answer; empty: it had one."""
        past = self._pasts.get(key)
        return "" if past is None else past.error

    def close(self) -> None:
        self._closed = True
        self._nudge.set()

    async def run(self) -> None:
        """Read until :meth:`close`."""
        while not self._closed:
            self._nudge.clear()
            due = self.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, (due - self._now()) / 1000)):
                    await self._nudge.wait()
            except TimeoutError:
                try:
                    await self.step()
                except Exception:
                    log.exception("past.bug")  # its experiment asks again; the others go on
                    self._again = self._now() + AGAIN

    async def step(self) -> None:
        """Read one stretch of the next champion."""
        key = min(self._line, key=lambda key: self._later.get(key, 0))  # the first of those that wait equally long
        self._line.remove(key)
        past = self._pasts[key]
        after = await self._read(past)
        # Where Prometheus does not answer, nobody is asked about for a while; where it cannot answer this, or not in
        # time, nobody else waits for it.
        again = self._now() + AGAIN if after.error else 0
        if after.error.partition(":")[0] in {*SPOILT, "PrometheusTimeout"}:
            self._later[key] = again
        else:
            self._again = again
            self._later.pop(key, None)
        if self._pasts.get(key) is not past:
            return  # another champion by now, or nobody asks
        self._pasts[key] = after
        now = self._now()
        if after.behind(now):
            self._line.append(key)
        if not after.behind(now) or (after.error and after.error != past.error):
            self._changed(key)

    async def _read(self, past: Past) -> Past:
        plan, scrape = past.plan, self._sources.scrape_seconds * 1000
        since = past.through - plan.clock.before
        frames = self._most // self._sources.series(plan, past.champion)
        least = 4 * (plan.block * 1000 + plan.clock.before)
        until = min(self._now(), since + max(least, round(max(least, frames * scrape) * past.reach)))
        streams: dict[str, Mapping[str, Track]] = {}
        try:
            for template in self._sources.of(plan, past.champion):
                need = Need(past.champion, plan.thresholds, since, until)
                for query in queries(template, (need,), scrape, most=1):
                    started = time.monotonic()
                    answer = await self._client.matrix(query.promql, query.at)
                    self._metrics.asked(f"{type(template).__name__}Past", time.monotonic() - started)
                    streams |= counted(template, query.needs, answer).get((past.champion, plan.thresholds), {})
        except PrometheusError as error:
            self._metrics.asked("Past", 0.0, error.reason)
            shorter = replace(past, reach=max(past.reach / 4, SHORTEST))
            if error.reason == "PrometheusTooLarge" and past.reach > SHORTEST:
                return shorter
            if error.reason == "PrometheusTimeout":
                past = shorter
            log.warning("past.failed", champion=past.champion.name, reason=error.reason, why=error.message)
            return replace(past, error=f"{error.reason}: {error.message}")
        return past.with_samples(streams, until)


def _same(one: Plan, other: Plan) -> bool:
    return (one.block, one.clock, one.source, one.thresholds, one.guardrails) == (
        other.block, other.clock, other.source, other.thresholds, other.guardrails,
    )  # fmt: skip
