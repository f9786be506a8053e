"""Asking Prometheus for all experiments together: one query a template and interval, cut where its answer is too large.

A reconcile says what its experiment wants counted (:meth:`Gatherer.aim`); what was answered last lies in memory
(:meth:`Gatherer.results`). All are asked at the same moments, a settled edge after the other, and those whose circuit
breakers look at what is not settled at each scrape. A failure is a result with a reason: the next moment asks anyway.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.batches import MOST_SAMPLES, Need, queries, query, tracks
from fiduciary.decide.counters.blocks import Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from fiduciary.decide.counters.batches import Query
    from fiduciary.decide.counters.plan import Plan
    from fiduciary.decide.counters.samples import Series
    from fiduciary.decide.counters.templates import Template, Workload
    from fiduciary.decide.counters.tracks import Track
    from fiduciary.engine.metrics import Metrics

    Streams = Mapping[str, Mapping[str, Track]]
    Answer = tuple[Series, ...] | PrometheusError
    Arm = tuple[Workload, tuple[int, ...]]
    """A version with the thresholds that its samples are read with."""

log = structlog.get_logger(part="gather")

#: Seconds between two questions at least.
PAUSE = 0.2

#: Answers that are none for what is in them, not for who gives them: one namespace's series may be all that is wrong.
SPOILT = frozenset({"PrometheusTooLarge", "PrometheusWrongSchema", "PrometheusRefused"})


class Client(Protocol):
    """The call of :class:`fiduciary.clients.prometheus.Prometheus` that is made here."""

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Whose counters are known. ``gateway`` None: the runtime's alone, in a version's own pods or in those of Seldon's
    Servers. Times are seconds, as Prometheus is set up."""

    runtime: Template
    seldon: Template
    gateway: Template | None
    scrape_seconds: int
    timeout_seconds: int

    def of(self, plan: Plan, workload: Workload) -> tuple[Template, ...]:
        """The pods' counters are always needed: they know the signed probes, and what arrived."""
        gateway = self.gateway if plan.source == "Gateway" else None
        pods = self.seldon if workload.servers else self.runtime
        return (pods,) if gateway is None else (pods, gateway)

    def series(self, plan: Plan, workload: Workload) -> int:
        """How many series one unit of a version has, roughly, all its counters together."""
        return sum(template.series(plan.thresholds) for template in self.of(plan, workload))


@dataclass(frozen=True, slots=True)
class Want:
    """What one experiment wants counted. ``each_scrape``: also what is not settled yet."""

    plan: Plan
    champion: Workload
    challenger: Workload
    last: int  # block that was folded last
    each_scrape: bool = False

    @property
    def since(self) -> int:
        return self.plan.edge(self.last) - self.plan.clock.before

    @property
    def settles(self) -> int:
        """When the next block can be closed, ms."""
        return self.plan.edge(self.last + 1) + self.plan.clock.settled


@dataclass(frozen=True, slots=True)
class Gathered:
    """The newest answer: samples of after ``last`` up to ``at`` (ms), or why there are none."""

    last: int
    at: int
    samples: Samples = field(default_factory=Samples)
    error: PrometheusError | None = None


class _Aim:
    __slots__ = ("reach", "result", "units", "want")

    def __init__(self, want: Want) -> None:
        self.want = want
        self.result: Gathered | None = None
        self.units = 2
        self.reach = 1  # how many times the usual stretch is read, where much has to be caught up on

    def due(self, scrape: int) -> int:
        """When to ask next, ms.

        All are asked at the same moments, one a scrape interval, so that a settled edge is one of them. Who was never
        asked does not wait for one.
        """
        want, result = self.want, self.result
        if result is None:
            return want.plan.edge(-1) if want.each_scrape else want.settles
        again = result.at + scrape // 2  # the moment after the one at which it was asked, which may be a little late
        due = want.settles if result.at < want.settles else again  # it should have closed: look again
        if want.each_scrape:
            due = min(due, again)
        offset = want.plan.clock.settled % scrape
        return -(-(due - offset) // scrape) * scrape + offset


class Gatherer:
    """``changed`` is told the keys whose answer is news."""

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
        self.sources = sources
        self._client = client
        self._changed = changed
        self._metrics = metrics
        self._now = now
        self._most = most
        self._scrape = sources.scrape_seconds * 1000
        self._aims: dict[Hashable, _Aim] = {}
        self._nudge = asyncio.Event()
        self._closed = False
        metrics.watch_experiments(lambda: len(self._aims))

    def aim(self, key: Hashable, want: Want | None) -> None:
        """What ``key`` wants counted from now on. Its last answer is kept while it reaches back far enough."""
        if want is None:
            self._aims.pop(key, None)
            return
        aim = self._aims.get(key)
        if aim is None:
            self._aims[key] = _Aim(want)
            self._nudge.set()
            return
        if aim.want == want:
            return
        before, aim.want = aim.want, want
        if (before.plan, before.champion, before.challenger) != (want.plan, want.champion, want.challenger):
            aim.result = None
        elif want.last > before.last:
            aim.reach = 1
        self._nudge.set()

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
        """Ask until :meth:`close`."""
        while not self._closed:
            self._nudge.clear()
            due = self.next_due()
            # Experiments that begin at the same moment, as after a restart, are asked about together.
            wait = None if due is None else max(PAUSE, (due - self._now()) / 1000)
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
                log.exception("gather.bug")  # what one of them counts must not end the operator of all
                await asyncio.sleep(self._scrape / 1000)

    def next_due(self) -> int | None:
        """When the next question is due, ms; None where nothing is counted."""
        return min((aim.due(self._scrape) for aim in self._aims.values()), default=None)

    async def ask(self) -> None:
        """Ask for everything that is due now, in as few queries as may be."""
        now = self._now()
        due = {key: aim for key, aim in self._aims.items() if aim.due(self._scrape) <= now}
        if not due:
            return
        until = {key: self._until(aim, now) for key, aim in due.items()}
        wants = {key: aim.want for key, aim in due.items()}
        found, failed = await self._answers(wants, until, {key: aim.units for key, aim in due.items()})
        for key, aim in due.items():
            want = wants[key]
            if self._aims.get(key) is not aim or (aim.want.plan, aim.want.champion) != (want.plan, want.champion):
                continue  # nobody wants to know any more
            error = failed.get(want.champion) or failed.get(want.challenger)
            arms = ((workload, want.plan.thresholds) for workload in (want.champion, want.challenger))
            samples = Samples() if error else Samples(*(found.get(arm, {}) for arm in arms))
            self._take(key, aim, Gathered(want.last, now if error else until[key], samples, error), now)

    def _until(self, aim: _Aim, now: int) -> int:
        """How far is read: what piled up while nobody looked is caught up on in stretches that an answer can hold."""
        want = aim.want
        series = self.sources.series(want.plan, want.champion) * max(1, aim.units)
        stretch = max(4, self._most // series) * self._scrape
        return min(now, want.since + max(stretch, 2 * want.plan.block * 1000) * aim.reach)

    async def _answers(
        self, wants: Mapping[Hashable, Want], until: Mapping[Hashable, int], units: Mapping[Hashable, int]
    ) -> tuple[Mapping[Arm, Streams], Mapping[Workload, PrometheusError]]:
        """(what each workload counted, for whom there is no answer)."""
        found: dict[Arm, dict[str, Mapping[str, Track]]] = {}
        failed: dict[Workload, PrometheusError] = {}
        arms = [
            (want, until[key], units[key], arm)
            for key, want in wants.items()
            for arm in (want.champion, want.challenger)
        ]
        templates = {template for want, _, _, arm in arms for template in self.sources.of(want.plan, arm)}
        for template in sorted(templates, key=lambda template: type(template).__name__):
            needs = [
                Need(arm, want.plan.thresholds, want.since, end, many)
                for want, end, many, arm in arms
                if template in self.sources.of(want.plan, arm)
            ]
            asked = queries(template, needs, self._scrape, self._most)
            for answers in await asyncio.gather(*(self._parted(template, one) for one in asked)):
                for needs, answer in answers:
                    if isinstance(answer, PrometheusError):
                        failed |= {need.workload: answer for need in needs}
                        continue
                    for arm, streams in counted(template, needs, answer).items():
                        found.setdefault(arm, {}).update(streams)
                    await asyncio.sleep(0)  # an answer of thousands of series takes a while: let others work
        return found, failed

    async def _parted(self, template: Template, asked: Query) -> list[tuple[Sequence[Need], Answer]]:
        """The answer; of one that is spoilt the halves, so that nobody is blind for what his neighbour counts."""
        answer, needs = await self._query(template, asked), asked.needs
        if not isinstance(answer, PrometheusError) or answer.reason not in SPOILT or len(needs) < 2:
            return [(needs, answer)]
        parts: list[tuple[Sequence[Need], Answer]] = []
        for half in (needs[: len(needs) // 2], needs[len(needs) // 2 :]):
            parts += await self._parted(template, query(template, half, asked.at))
        return parts

    async def _query(self, template: Template, query: Query) -> Answer:
        started = time.monotonic()
        try:
            answer = await self._client.matrix(query.promql, query.at)
        except PrometheusError as error:
            self._metrics.asked(type(template).__name__, time.monotonic() - started, error.reason)
            return error
        self._metrics.asked(type(template).__name__, time.monotonic() - started)
        return answer

    def _take(self, key: Hashable, aim: _Aim, result: Gathered, now: int) -> None:
        before, aim.result = aim.result, result
        if result.error is not None:
            if before is None or before.error is None or before.error.reason != result.error.reason:
                log.warning("gather.failed", key=str(key), reason=result.error.reason, why=result.error.message)
            if result.error.reason in SPOILT:
                aim.units = self._most  # it is asked about by itself from now on
        else:
            streams = (*result.samples.champion.values(), *result.samples.challenger.values())
            aim.units = max(1, *(len(units) for units in streams), 1)
            if result.at < now:
                aim.reach *= 2  # if this stretch closes nothing, a longer one does
        self._changed(key)


def counted(template: Template, needs: Sequence[Need], answer: Sequence[Series]) -> dict[Arm, Streams]:
    """Whose answer is whose: thresholds have their places by experiment, so each set of them is read by itself."""
    found: dict[Arm, Streams] = {}
    by_thresholds: dict[tuple[int, ...], set[Workload]] = {}
    for need in needs:
        by_thresholds.setdefault(need.thresholds, set()).add(need.workload)
    for thresholds, workloads in by_thresholds.items():
        read = tracks(template, answer, thresholds)
        for workload in workloads:
            streams = read.get(workload.bare)
            if streams is not None:
                found[workload, thresholds] = {
                    name: {key: track for key, track in units.items() if workload.holds(key)}
                    for name, units in streams.items()
                }
    return found
