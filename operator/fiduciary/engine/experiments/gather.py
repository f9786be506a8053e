"""When Prometheus is asked, for all experiments together, and the newest answer for each.

A reconcile says what its experiment wants counted (:meth:`Gatherer.aim`); what was answered last lies in memory
(:meth:`Gatherer.results`). All are asked at the same moments, a settled edge after the other, and those whose circuit
breakers look at what is not settled at each scrape. A failure is a result with a reason: the next moment asks anyway.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.batches import MOST_SAMPLES
from fiduciary.decide.counters.blocks import Samples
from fiduciary.engine.experiments.asking import SPOILT, Asker, Question

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from fiduciary.engine.experiments.asking import Client, Sources, Want
    from fiduciary.engine.metrics import Metrics

log = structlog.get_logger(part="gather")

#: Seconds between two questions at least.
PAUSE = 0.2
#: An answer that took more than this part of a scrape interval is slow.
SLOW = 0.25


@dataclass(frozen=True, slots=True)
class Gathered:
    """The newest answer: samples of after ``last`` up to ``at`` (ms), or why there are none."""

    last: int
    at: int
    samples: Samples = field(default_factory=Samples)
    error: PrometheusError | None = None


class _Aim:
    __slots__ = ("apart", "asked", "reach", "result", "tried", "units", "want")

    def __init__(self, want: Want) -> None:
        self.want = want
        self.result: Gathered | None = None
        self.asked: Question | None = None  # its answer is on its way
        self.units = 2
        self.apart = 1  # how many times its size it is taken for, so that fewer others share its query
        self.tried = 0  # how often it was asked about alone because nobody had an answer
        self.reach = 1  # how many times the usual stretch is read, where much has to be caught up on

    def due(self, scrape: int, now: int) -> int:
        """When to ask next, ms.

        All are asked at the same moments, one a scrape interval, so that a settled edge is one of them. Who was never
        asked does not wait for one, nor who was asked in the future: our clock was set back.
        """
        want, result = self.want, self.result
        if result is None:
            return want.plan.edge(-1) if want.each_scrape else want.settles
        if result.at > now:
            return now
        again = result.at + scrape // 2  # the moment after the one at which it was asked, which may be a little late
        due = want.settles if result.at < want.settles else again  # it should have closed: look again
        if want.each_scrape:
            due = min(due, again)
        offset = want.plan.clock.settled % scrape
        return -(-(due - offset) // scrape) * scrape + offset


class Gatherer:
    """``changed`` is told the keys whose answer is news. ``urgent``: the client for what reaches up to now."""

    def __init__(
        self,
        client: Client,
        sources: Sources,
        changed: Callable[[Hashable], None],
        metrics: Metrics,
        *,
        urgent: Client | None = None,
        now: Callable[[], int] = lambda: round(time.time() * 1000),
        most: int = MOST_SAMPLES,
    ) -> None:
        self.sources = sources
        self._asker = Asker(client, urgent or client, sources, metrics, most)
        self._changed = changed
        self._now = now
        self._most = most
        self._scrape = sources.scrape_seconds * 1000
        self._aims: dict[Hashable, _Aim] = {}
        self._nudge = asyncio.Event()
        self._awaited: int | None = None  # the moment until which nobody has to be asked about
        self._closed = False
        metrics.watch_experiments(lambda: len(self._aims))

    def aim(self, key: Hashable, want: Want | None) -> None:
        """What ``key`` wants counted from now on. Its last answer is kept while it reaches back far enough."""
        if want is None:
            self._aims.pop(key, None)
            return
        aim = self._aims.get(key)
        if aim is None:
            aim = self._aims[key] = _Aim(want)
        elif aim.want == want:
            return
        else:
            before, aim.want = aim.want, want
            if (before.plan, before.champion, before.challenger) != (want.plan, want.champion, want.challenger):
                aim.result = None
            elif want.last > before.last:
                aim.reach = 1
        self._wake(aim)

    def drop(self, key: Hashable) -> None:
        self.aim(key, None)

    def results(self, key: Hashable, last: int) -> Gathered | None:
        """The newest answer that holds everything after block ``last``; None while there is none."""
        aim = self._aims.get(key)
        result = None if aim is None else aim.result
        return None if result is None or result.last > last else result

    def close(self) -> None:
        self._closed = True
        self._nudge.set()

    async def run(self) -> None:
        """Ask until :meth:`close`. A round that waits for a slow answer does not hold up the next one."""
        rounds: set[asyncio.Task[None]] = set()
        try:
            while not self._closed:
                self._nudge.clear()
                self._awaited = due = self.next_due()
                # Experiments that begin at the same moment, as after a restart, are asked about together.
                wait = None if due is None else max(PAUSE, (due - self._now()) / 1000)
                try:
                    async with asyncio.timeout(wait):
                        await self._nudge.wait()  # somebody has to be asked about sooner
                except TimeoutError:
                    task = asyncio.create_task(self._round(self._due()))
                    rounds.add(task)
                    task.add_done_callback(rounds.discard)
        finally:
            for task in rounds:
                task.cancel()
            await asyncio.gather(*rounds, return_exceptions=True)

    def next_due(self) -> int | None:
        """When the next question is due, ms; None where nothing is counted, or every answer is on its way."""
        now = self._now()
        return min((aim.due(self._scrape, now) for aim in self._aims.values() if aim.asked is None), default=None)

    async def ask(self) -> None:
        """Ask for everything that is due now, and wait for all answers."""
        questions = self._due()
        await self._asker.ask(questions, self._answered)
        self._divide(questions)

    def _due(self) -> list[Question]:
        """A question for each experiment that is due and has none on its way."""
        now = self._now()
        due = [(key, aim) for key, aim in self._aims.items() if aim.asked is None and aim.due(self._scrape, now) <= now]
        for key, aim in due:
            aim.asked = Question(key, aim.want, now, self._until(aim, now), aim.units * aim.apart)
        return [aim.asked for _, aim in due if aim.asked is not None]

    async def _round(self, questions: Sequence[Question]) -> None:
        try:
            await self._asker.ask(questions, self._answered)
            self._divide(questions)
        except Exception as bug:
            log.exception("gather.bug")  # what one of them counts must not end the operator of all
            for question in questions:
                aim = self._aims.get(question.key)
                if aim is not None and aim.asked is question:
                    message = f"an answer could not be read ({type(bug).__name__}, see the operator's log)"
                    question.error = question.error or PrometheusError("PrometheusWrongSchema", message)
                    aim.units = self._most
                    self._answered(question)

    def _divide(self, questions: Sequence[Question]) -> None:
        """Ask in smaller parts for those who had no answer, where it may be for what one of them counts: others had
        one. Where nobody had, Prometheus itself may be slow, and more questions would make it slower: then one more is
        asked, about one of them alone, and its answer is what the others are divided for."""
        lost = [(aim, one.error.reason) for one in questions if one.error and (aim := self._aims.get(one.key))]
        lost = [(aim, reason) for aim, reason in lost if reason in SPOILT or reason == "PrometheusTimeout"]
        heard = any(one.error is None for one in questions)
        if not heard and any(aim.apart > 1 or reason in SPOILT for aim, reason in lost):
            parts = max(4, min(aim.apart for aim, _ in lost))
            for aim, _ in lost:
                aim.apart = min(aim.apart, parts)  # who was alone last time has shown nothing
            alone = min((aim for aim, _ in lost), key=lambda aim: aim.tried)
            alone.tried, alone.apart = alone.tried + 1, self._most
            return
        for aim, reason in lost:
            if reason in SPOILT:
                aim.units = self._most  # it is asked about by itself from now on
            else:
                aim.apart = min(self._most, 4 * aim.apart)  # until who is slow is alone

    def _answered(self, question: Question) -> None:
        aim, want = self._aims.get(question.key), question.want
        if aim is None or aim.asked is not question:
            return  # nobody wants to know any more
        aim.asked = None
        if (aim.want.plan, aim.want.champion, aim.want.challenger) == (want.plan, want.champion, want.challenger):
            at = question.until if question.error is None else question.now
            samples = question.samples() if question.error is None else Samples()
            if question.error is None and question.seconds < SLOW * self.sources.scrape_seconds:
                aim.apart = 1  # who is slow even alone would be so for all others again
            self._take(question.key, aim, Gathered(want.last, at, samples, question.error), question.now)
        self._wake(aim)

    def _wake(self, aim: _Aim) -> None:
        """Look again whose turn it is, if this one's comes sooner than who is waited for."""
        if aim.asked is None and (self._awaited is None or aim.due(self._scrape, self._now()) < self._awaited):
            self._nudge.set()

    def _until(self, aim: _Aim, now: int) -> int:
        """How far is read: what piled up while nobody looked is caught up on in stretches that an answer can hold."""
        want = aim.want
        series = self.sources.series(want.plan, want.champion) * max(1, aim.units)
        stretch = max(4, self._most // series) * self._scrape
        return min(now, want.since + max(stretch, 2 * want.plan.block * 1000) * aim.reach)

    def _take(self, key: Hashable, aim: _Aim, result: Gathered, now: int) -> None:
        before, aim.result = aim.result, result
        if result.error is not None:
            if before is None or before.error is None or before.error.reason != result.error.reason:
                log.warning("gather.failed", key=str(key), reason=result.error.reason, why=result.error.message)
        else:
            streams = (*result.samples.champion.values(), *result.samples.challenger.values())
            aim.units = max(1, *(len(units) for units in streams), 1)
            if result.at < now:
                aim.reach *= 2  # if this stretch closes nothing, a longer one does
        self._changed(key)
