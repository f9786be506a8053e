"""Asking Prometheus for all drift policies together: how many rows there are, and all counts where a window ends.

A reconcile says what its policy wants counted (:meth:`Counters.aim`) and takes what was answered since
(:meth:`Counters.results`). Rows of all versions are asked for at the same moments, with one query; where they say that
a window has ended, its moment is looked for in the samples since the last look, and everything is read at that moment.
So windows are the same whoever looks when, and a policy that nobody could look at is caught up with window by window.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.batches import MOST_SAMPLES
from fiduciary.decide.drift.series import (
    by_version,
    counts_query,
    on_grid,
    reading_of,
    reference_of,
    rows_of,
    rows_query,
)
from fiduciary.decide.drift.state import Reading
from fiduciary.decide.drift.windows import Edge, due, edges_between, windows
from fiduciary.decide.drift.world import QueryValue
from fiduciary.engine.experiments.asking import SPOILT

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from fiduciary.decide.counters.samples import Series
    from fiduciary.decide.drift.calibrate import Grid
    from fiduciary.decide.drift.series import Watched
    from fiduciary.engine.metrics import Metrics

    Divided = Mapping[tuple[str, ...], list[Series]]

log = structlog.get_logger(part="drift")

#: Scrape intervals between two questions: a day's row is no news that anybody waits for.
EVERY = 4
#: Milliseconds until what is left of a long past is asked for.
SOON = 200
#: Versions in one query: of their rows, and of everything that is counted of them (some 250 series each).
MOST_ROWS, MOST_COUNTS = 1_000, 100
#: Windows of one policy that are read at a time.
MOST_WINDOWS = 24
#: Queries of monitors that are under way at once, one a policy.
MOST_QUERIES = 8
#: Seconds in which they are waited for; those of a slow one go on, and its policy alone waits for them.
PATIENCE = 1.0


class Client(Protocol):
    """The calls of :class:`fiduciary.clients.prometheus.Prometheus` that are made here."""

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]: ...
    async def vector(self, promql: str, at: int) -> tuple[Series, ...]: ...


@dataclass(frozen=True, slots=True)
class Scrapes:
    """How Prometheus is set up: seconds, and the labels of a scrape target."""

    seconds: int
    timeout_seconds: int
    namespace: str = "namespace"
    pod: str = "pod"

    @property
    def step(self) -> int:
        """ms."""
        return self.seconds * 1000

    @property
    def settled(self) -> int:
        """ms after which a moment's samples are all stored."""
        return (self.seconds + self.timeout_seconds) * 1000

    @property
    def reach(self) -> int:
        """ms before a moment in which the last sample is its value: one scrape may be lost."""
        return (2 * self.seconds + self.timeout_seconds) * 1000


@dataclass(frozen=True, slots=True)
class Want:
    """What one policy wants counted.

    Attributes:
        edge: where its state is.
        since: ms up to which everything is folded; 0: nothing is.
        queries: of its monitors, as they are sent.
    """

    watched: Watched
    grid: Grid
    edge: Edge
    since: int
    queries: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """What was read at the end of a window. ``reading`` None: nothing was counted there."""

    at: int
    reading: Reading | None
    values: tuple[QueryValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of one version now.

    Attributes:
        closings: ends of windows that are not folded yet, oldest first.
        latest: rows at the last look.
        reference: hash of the edges that the scorer counts over.
        behind: there are more ends of windows, which are not read yet.
        error: why there is no answer.
    """

    closings: tuple[Closing, ...] = ()
    latest: Reading | None = None
    reference: str | None = None
    behind: bool = False
    error: PrometheusError | None = None


@dataclass
class _Aim:
    want: Want
    asked: int = 0  # when, ms
    looked: int = 0  # up to here the ends of windows are known, ms
    stretch: int = 1
    answered: bool = False
    counted: Counted = field(default_factory=Counted)
    half: list[tuple[int, Reading | None]] = field(default_factory=list[tuple[int, "Reading | None"]])
    """Ends of windows whose queries are not answered yet."""

    @property
    def since(self) -> int:
        return max(self.looked, self.want.since)

    def edge(self) -> Edge:
        """Where the state will be with what was read."""
        edge = self.want.edge
        for closing in self.counted.closings:
            if closing.reading is None:
                continue
            for step in windows(self.want.grid, edge, (closing.reading,)):
                edge = step if isinstance(step, Edge) else Edge(closing.reading, step.last)
        return edge


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
        self._client = client
        self._changed = changed
        self._metrics = metrics
        self._now = now
        self._most = most
        self._aims: dict[Hashable, _Aim] = {}
        self._nudge = asyncio.Event()
        self._turns = asyncio.Semaphore(MOST_QUERIES)
        self._slow: set[asyncio.Task[None]] = set()
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
            self._aims[key] = _Aim(want)
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
        for task in self._slow:
            task.cancel()

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
                log.exception("drift.bug")  # what one of them counts must not end the operator of all
                await asyncio.sleep(self.scrapes.seconds)

    def next_due(self) -> int | None:
        """When the next question is due, ms; None where nothing is watched."""
        return min((self._due(aim) for aim in self._aims.values() if not aim.half), default=None)

    def _due(self, aim: _Aim) -> int:
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
        aims = {key: aim for key, aim in self._aims.items() if not aim.half and self._due(aim) <= now}
        if not aims:
            return
        step = self.scrapes.step
        at = (now - self.scrapes.settled) // step * step
        before = {key: (aim.answered, aim.counted) for key, aim in aims.items()}
        found = await self._rows(list(aims.values()), at)
        for aim in aims.values():
            self._latest(aim, found, at)
        await self._ends([aim for aim in aims.values() if aim.counted.error is None], at)
        for key, aim in aims.items():
            aim.asked = at
            if not aim.half:
                self._tell(key, aim, *before[key])
        await self._values({key: aim for key, aim in aims.items() if aim.half}, before)

    def _tell(self, key: Hashable, aim: _Aim, answered: bool, before: Counted) -> None:
        aim.answered = True
        if self._aims.get(key) is aim and self._news(key, answered, before, aim.counted):
            self._changed(key)

    def _news(self, key: Hashable, answered: bool, before: Counted, after: Counted) -> bool:
        error = after.error.reason if after.error else ""
        if error != (before.error.reason if before.error else "") and after.error is not None:
            log.warning("drift.unseen", key=str(key), reason=error, why=after.error.message)
        return (
            not answered
            or error != (before.error.reason if before.error else "")
            or after.reference != before.reference
            or (bool(after.closings) and after.closings != before.closings)
        )

    # --- how many rows -----------------------------------------------------------------------------------------------

    async def _rows(self, aims: Sequence[_Aim], at: int) -> dict[tuple[str, ...], list[Series] | PrometheusError]:
        """Newest samples of the row counters by version, or why there are none."""
        found: dict[tuple[str, ...], list[Series] | PrometheusError] = {}
        watched = list({aim.want.watched.place: aim.want.watched for aim in aims}.values())
        for start in range(0, len(watched), MOST_ROWS):
            part = watched[start : start + MOST_ROWS]
            found |= await self._answers("DriftRows", part, self.scrapes.reach, at, rows_query)
        return found

    def _latest(self, aim: _Aim, found: Mapping[tuple[str, ...], list[Series] | PrometheusError], at: int) -> None:
        watched, label = aim.want.watched, self.scrapes.namespace
        answer = found.get(watched.place, [])
        if isinstance(answer, PrometheusError):
            aim.counted = replace(aim.counted, error=answer)
            return
        rows = rows_of(answer, watched, label)
        aim.counted = Counted(
            aim.counted.closings,
            Reading(at, rows[-1][1]) if rows else aim.counted.latest,
            # A scorer that is away counts over the same edges as before.
            reference_of(answer, watched, label) if rows else aim.counted.reference,
            aim.counted.behind,
        )

    # --- where windows end -------------------------------------------------------------------------------------------

    async def _ends(self, aims: Sequence[_Aim], at: int) -> None:
        """Find the ends of windows up to ``at``, and read everything there."""
        moments: dict[int, list[_Aim]] = {}
        searched: list[_Aim] = []
        for aim in aims:
            if len(aim.counted.closings) >= MOST_WINDOWS:
                continue  # first they are folded, unless they are over other edges, or what was folded cannot be read
            aim.counted = replace(aim.counted, behind=False)
            if aim.want.grid.length:
                self._take(moments, aim, self._wall_clock(aim, at))
            elif not self._passed(aim):
                aim.looked = at
            elif not aim.since:  # nobody has looked before: it begins here
                aim.looked = at
                self._take(moments, aim, (at,))
            else:
                searched.append(aim)
        await self._search(moments, searched, at)
        for moment in sorted(moments):
            await self._read(moment, [aim for aim in moments[moment] if aim.counted.error is None])

    def _take(self, moments: dict[int, list[_Aim]], aim: _Aim, times: Sequence[int]) -> None:
        if len(times) > MOST_WINDOWS:
            times = times[:MOST_WINDOWS]
            aim.looked = times[-1]
            aim.counted = replace(aim.counted, behind=True)
        for moment in times:
            moments.setdefault(moment, []).append(aim)

    def _wall_clock(self, aim: _Aim, at: int) -> Sequence[int]:
        length = aim.want.grid.length
        since, last = aim.since, at // length * length
        aim.looked = max(last, aim.looked)
        return edges_between(aim.want.grid, since, at) if since else (last,)

    def _passed(self, aim: _Aim) -> bool:
        """Whether rows say that a window has ended: they never fall, so that one look at the newest tells."""
        latest = aim.counted.latest
        return latest is not None and bool(due(aim.want.grid, aim.edge(), ((latest.at, latest.rows),)))

    async def _search(self, moments: dict[int, list[_Aim]], aims: Sequence[_Aim], at: int) -> None:
        """The moments in the samples since the last look, with one query for all who looked at the same time."""
        step = self.scrapes.step
        together: dict[tuple[int, int], list[_Aim]] = {}
        for aim in aims:
            stretch = max(EVERY, self._most // max(1, len(aims))) * step * aim.stretch
            together.setdefault((aim.since, min(at, aim.since + stretch)), []).append(aim)
        for (since, until), part in together.items():
            for start in range(0, len(part), MOST_ROWS):
                few = part[start : start + MOST_ROWS]
                watched = [aim.want.watched for aim in few]
                found = await self._answers("DriftRows", watched, until - since, until, rows_query)
                for aim in few:
                    answer = found.get(aim.want.watched.place, [])
                    if isinstance(answer, PrometheusError):
                        aim.counted = replace(aim.counted, error=answer)
                        continue
                    samples = on_grid(rows_of(answer, aim.want.watched, self.scrapes.namespace), step)
                    times = due(aim.want.grid, aim.edge(), [one for one in samples if one[0] > since])
                    aim.looked, aim.stretch = until, 1 if times else 2 * aim.stretch
                    aim.counted = replace(aim.counted, behind=until < at)
                    self._take(moments, aim, times)

    async def _read(self, moment: int, aims: Sequence[_Aim]) -> None:
        """All counts and values of queries at one moment."""
        for start in range(0, len(aims), MOST_COUNTS):
            part = aims[start : start + MOST_COUNTS]
            watched = [aim.want.watched for aim in part]
            found = await self._answers("DriftCounts", watched, self.scrapes.reach, moment, counts_query)
            for aim in part:
                answer = found.get(aim.want.watched.place, [])
                if isinstance(answer, PrometheusError):
                    # Read again from here on; what was found before it stays.
                    aim.looked = min(aim.looked, moment - 1)
                    aim.counted = replace(aim.counted, error=answer)
                    continue
                reading = reading_of(answer, aim.want.watched, moment, self.scrapes.namespace)
                if aim.want.queries:
                    aim.half.append((moment, reading))
                elif reading is not None:
                    aim.counted = replace(aim.counted, closings=(*aim.counted.closings, Closing(moment, reading)))
                await asyncio.sleep(0)  # an answer of thousands of series takes a while: let others work

    async def _values(self, aims: Mapping[Hashable, _Aim], before: Mapping[Hashable, tuple[bool, Counted]]) -> None:
        """Queries are users' own: what one of them takes is for its policy alone to wait for."""
        tasks = [asyncio.create_task(self._completed(key, aim, *before[key])) for key, aim in aims.items()]
        if not tasks:
            return
        _, slow = await asyncio.wait(tasks, timeout=PATIENCE)
        self._slow |= slow
        for task in slow:
            task.add_done_callback(self._slow.discard)

    async def _completed(self, key: Hashable, aim: _Aim, answered: bool, before: Counted) -> None:
        queries, closings = aim.want.queries, list[Closing]()
        try:
            for moment, reading in aim.half:
                values: list[QueryValue] = []
                for name, text in queries:
                    async with self._turns:
                        values.append(await self._value(name, text, moment))
                closings.append(Closing(moment, reading, tuple(values)))
            aim.counted = replace(aim.counted, closings=(*aim.counted.closings, *closings))
        except Exception:
            log.exception("drift.bug", key=str(key))
            aim.looked = min(aim.looked, aim.half[0][0] - 1)  # read again from here on
        aim.half.clear()
        self._tell(key, aim, answered, before)
        self._nudge.set()

    async def _value(self, monitor: str, promql: str, at: int) -> QueryValue:
        started = time.monotonic()
        try:
            answer = await self._client.vector(promql, at)
        except PrometheusError as error:
            self._metrics.asked("DriftQuery", time.monotonic() - started, error.reason)
            return QueryValue(monitor, at, None, f"{error.reason}: {error.message}")
        self._metrics.asked("DriftQuery", time.monotonic() - started)
        if len(answer) != 1:
            told = "the query finds no series" if not answer else f"the query finds {len(answer)} series, not one"
            return QueryValue(monitor, at, None, f"{told}: write one that yields a number")
        return QueryValue(monitor, at, answer[0].samples[-1][1])

    async def _answers(
        self, name: str, watched: Sequence[Watched], milliseconds: int, at: int, query: Callable[..., str]
    ) -> dict[tuple[str, ...], list[Series] | PrometheusError]:
        """Series by version. Of an answer that is spoilt the halves, so that nobody is blind for his neighbour."""
        started, scrapes = time.monotonic(), self.scrapes
        try:
            answer = await self._client.matrix(query(watched, milliseconds, scrapes.namespace, scrapes.pod), at)
        except PrometheusError as error:
            self._metrics.asked(name, time.monotonic() - started, error.reason)
            if error.reason not in SPOILT or len(watched) < 2:
                return {its.place: error for its in watched}
            half = len(watched) // 2
            return {
                **await self._answers(name, watched[:half], milliseconds, at, query),
                **await self._answers(name, watched[half:], milliseconds, at, query),
            }
        self._metrics.asked(name, time.monotonic() - started)
        return dict(by_version(answer, scrapes.namespace))
