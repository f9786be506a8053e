"""The questions themselves: of many versions at once, and of one monitor; each has its answer, or says why not.

Nobody is blind for his neighbour: an answer that is spoilt is asked for again in halves, down to the version alone that
spoils it, whether by too many series or by a bug of ours in reading them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.drift.series import by_version, counts_query, latest, latest_query, readings, rows_query
from fiduciary.decide.drift.world import QueryValue
from fiduciary.engine.drift.counted import Unseen
from fiduciary.engine.experiments.asking import SPOILT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fiduciary.decide.counters.samples import Series, Valued
    from fiduciary.decide.drift.series import Latest, Place, Watched
    from fiduciary.decide.drift.state import Reading
    from fiduciary.engine.drift.counted import Scrapes
    from fiduciary.engine.metrics import Metrics

    Question = Callable[[Sequence[Watched], int, str, str], str]

log = structlog.get_logger(part="drift")

#: Series from which reading an answer takes longer than others should wait.
MANY = 2_000
Answer = TypeVar("Answer", bound="Sequence[object]")
Found = TypeVar("Found")
BUG = Unseen("InternalError", "the operator failed on the counts of this policy; its log says where, and it asks again")


class Client(Protocol):
    """The calls of :class:`fiduciary.clients.prometheus.Prometheus` that are made here."""

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]: ...
    async def values(self, promql: str, at: int) -> Sequence[Valued]: ...
    async def vector(self, promql: str, at: int) -> tuple[Series, ...]: ...


class Asker:
    """Asks Prometheus, and counts what was asked."""

    def __init__(self, client: Client, scrapes: Scrapes, metrics: Metrics) -> None:
        self._client = client
        self._scrapes = scrapes
        self._metrics = metrics

    async def latest(self, watched: Sequence[Watched], at: int) -> Mapping[Place, Latest | Unseen]:
        """Rows by version at ``at``; who is not counted is not in it."""
        return await self._halved(
            "DriftRows", watched, self._scrapes.reach, at, latest_query, self._client.values, latest
        )

    async def rows(
        self, watched: Sequence[Watched], milliseconds: int, at: int
    ) -> Mapping[Place, list[Series] | Unseen]:
        """Raw samples of the row counters by version in the time before ``at``; who has none is not in it."""

        def read(answer: Sequence[Series]) -> Mapping[Place, list[Series]]:
            return by_version(answer, self._scrapes.namespace)

        return await self._halved("DriftRows", watched, milliseconds, at, rows_query, self._client.matrix, read)

    async def counts(self, watched: Sequence[Watched], at: int) -> Mapping[Place, Reading | Unseen]:
        """All counts at ``at`` by version; who is not counted is not in it."""

        def read(answer: Sequence[Valued]) -> Mapping[Place, Reading]:
            return readings(answer, at)

        return await self._halved(
            "DriftCounts", watched, self._scrapes.reach, at, counts_query, self._client.values, read
        )

    async def _halved(
        self,
        name: str,
        watched: Sequence[Watched],
        milliseconds: int,
        at: int,
        question: Question,
        ask: Callable[[str, int], Awaitable[Answer]],
        read: Callable[[Answer], Mapping[Place, Found]],
    ) -> Mapping[Place, Found | Unseen]:
        started, scrapes = time.monotonic(), self._scrapes
        try:
            answer = await ask(question(watched, milliseconds, scrapes.namespace, scrapes.pod), at)
            # What takes a while is done beside the loop, in which others are answered.
            found = await asyncio.to_thread(read, answer) if len(answer) > MANY else read(answer)
        except PrometheusError as error:
            self._metrics.asked(name, time.monotonic() - started, error.reason)
            why, spoilt = Unseen(error.reason, error.message), error.reason in SPOILT
        except Exception:
            self._metrics.asked(name, time.monotonic() - started, BUG.reason)
            log.exception("drift.bug", template=name, versions=len(watched))
            why, spoilt = BUG, True
        else:
            self._metrics.asked(name, time.monotonic() - started)
            return found
        if not spoilt or len(watched) < 2:
            return {its.place: why for its in watched}
        half = len(watched) // 2
        return {
            **await self._halved(name, watched[:half], milliseconds, at, question, ask, read),
            **await self._halved(name, watched[half:], milliseconds, at, question, ask, read),
        }

    async def value(self, monitor: str, promql: str, at: int) -> QueryValue | Unseen:
        """Of one monitor's query. What Prometheus says of the query is a value that is none, with its words; that it
        says nothing at all is no value."""
        started = time.monotonic()
        try:
            answer = await self._client.vector(promql, at)
        except PrometheusError as error:
            self._metrics.asked("DriftQuery", time.monotonic() - started, error.reason)
            if error.reason in SPOILT:
                return QueryValue(monitor, at, None, f"{error.reason}: {error.message}")
            return Unseen(error.reason, error.message)
        self._metrics.asked("DriftQuery", time.monotonic() - started)
        if len(answer) != 1:
            told = "the query finds no series" if not answer else f"the query finds {len(answer)} series, not one"
            return QueryValue(monitor, at, None, f"{told}: write one that yields a number")
        return QueryValue(monitor, at, answer[0].samples[-1][1])
