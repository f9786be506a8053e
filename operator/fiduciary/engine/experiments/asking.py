"""One round of questions to Prometheus for all experiments that are due: few queries, and none waits for another.

An experiment has its answer as soon as the queries that hold its own versions are answered. What reaches up to now,
which circuit breakers watch, goes through a client of its own: what is caught up on takes long, and a slow answer for
somebody else must not delay the moment at which a failing challenger is seen.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.batches import MOST_SAMPLES, Need, queries, query, tracks
from fiduciary.decide.counters.blocks import Samples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Mapping, Sequence

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
    Owners = dict[Need, list["Question"]]

#: Answers that are none for what is in them, not for who gives them: one namespace's series may be all that is wrong.
SPOILT = frozenset({"PrometheusTooLarge", "PrometheusWrongSchema", "PrometheusRefused"})
#: Spoilt answers to one question and its halves, without any other, after which no smaller part is asked about.
MOST_SPOILT = 16


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


@dataclass(eq=False, slots=True)
class Question:
    """What is asked for one experiment at ``now``: samples up to ``until``, ms. ``units``: how many a version had.

    ``open``: queries that have not been answered. ``seconds``: that the slowest one took. ``error``: why there is no
    answer for one of its versions.
    """

    key: Hashable
    want: Want
    now: int
    until: int
    units: int
    open: int = 0
    seconds: float = 0.0
    error: PrometheusError | None = None
    found: dict[Workload, dict[str, Mapping[str, Track]]] = field(
        default_factory=dict["Workload", "dict[str, Mapping[str, Track]]"]
    )

    @property
    def urgent(self) -> bool:
        """Whether it reaches up to now, so that breakers see what is not settled."""
        return self.until == self.now

    def needs(self) -> Iterator[Need]:
        want = self.want
        for workload in (want.champion, want.challenger):
            yield Need(workload, want.plan.thresholds, want.since, self.until, self.units)

    def samples(self) -> Samples:
        return Samples(self.found.get(self.want.champion, {}), self.found.get(self.want.challenger, {}))


class Asker:
    """Asks. ``urgent`` is the client for what reaches up to now."""

    def __init__(
        self, client: Client, urgent: Client, sources: Sources, metrics: Metrics, most: int = MOST_SAMPLES
    ) -> None:
        self._client = client
        self._urgent = urgent
        self._sources = sources
        self._metrics = metrics
        self._most = most
        self._mute: set[bool] = set()  # which client (urgent or not) had a good answer for nobody last time

    async def ask(self, questions: Sequence[Question], answered: Callable[[Question], None]) -> None:
        """Every question is handed to ``answered`` once, with its samples or its error; returns after the last one."""
        urgent = [question for question in questions if question.urgent]
        others = [question for question in questions if not question.urgent]
        asked = [
            self._one(client, template, query, owners, answered)
            for client, some in ((self._urgent, urgent), (self._client, others))
            for template, query, owners in self._queries(some)
        ]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome  # only now: the others' answers are as good as ever
        for client, some in ((self._urgent, urgent), (self._client, others)):
            if any(question.error is None for question in some):
                self._mute.discard(client is self._urgent)
            elif any(question.error is not None and question.error.reason in SPOILT for question in some):
                self._mute.add(client is self._urgent)

    def _queries(self, questions: Sequence[Question]) -> Iterator[tuple[Template, Query, Owners]]:
        templates = {
            template
            for question in questions
            for need in question.needs()
            for template in self._sources.of(question.want.plan, need.workload)
        }
        for template in sorted(templates, key=lambda template: type(template).__name__):
            owners: Owners = {}
            for question in questions:
                for need in question.needs():
                    if template in self._sources.of(question.want.plan, need.workload):
                        owners.setdefault(need, []).append(question)
                        question.open += 1
            for asked in queries(template, owners, self._sources.scrape_seconds * 1000, self._most):
                yield template, asked, owners

    async def _one(
        self, client: Client, template: Template, asked: Query, owners: Owners, answered: Callable[[Question], None]
    ) -> None:
        async for needs, answer, seconds in self._parted(client, template, asked):
            found = {} if isinstance(answer, PrometheusError) else counted(template, needs, answer)
            for need in needs:
                for question in owners[need]:
                    question.seconds = max(question.seconds, seconds)
                    if isinstance(answer, PrometheusError):
                        question.error = question.error or answer
                    else:
                        streams = found.get((need.workload, need.thresholds), {})
                        question.found.setdefault(need.workload, {}).update(streams)
                    question.open -= 1
                    if not question.open:
                        answered(question)
            await asyncio.sleep(0)  # an answer of thousands of series takes a while: let others work

    async def _parted(
        self, client: Client, template: Template, asked: Query
    ) -> AsyncGenerator[tuple[Sequence[Need], Answer, float]]:
        """The answer and the seconds that it took; of one that is spoilt the halves, so that nobody is blind for what
        his neighbour counts. Where every part is spoilt it is not the parts: then the whole is asked for once."""
        parts, spoilt, good = [asked], 0, False
        while parts:
            part, started = parts.pop(), time.monotonic()
            answer, needs = await self._query(client, template, part), part.needs
            failed = isinstance(answer, PrometheusError)
            good = good or not failed
            hopeless = (client is self._urgent) in self._mute or (spoilt >= MOST_SPOILT and not good)
            if not failed or answer.reason not in SPOILT or len(needs) < 2 or hopeless:
                yield needs, answer, time.monotonic() - started
                continue
            spoilt += 1
            middle = len(needs) // 2
            parts += [query(template, half, asked.at) for half in (needs[middle:], needs[:middle])]

    async def _query(self, client: Client, template: Template, asked: Query) -> Answer:
        started = time.monotonic()
        try:
            answer = await client.matrix(asked.promql, asked.at)
        except PrometheusError as error:
            self._metrics.asked(type(template).__name__, time.monotonic() - started, error.reason)
            return error
        self._metrics.asked(type(template).__name__, time.monotonic() - started)
        return answer


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
