"""Pods that count requests, and a Prometheus in memory that scrapes them every 15 seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.samples import Series

if TYPE_CHECKING:
    from fiduciary.clients.prometheus_answers import Reason

SCRAPE = 15_000


@dataclass
class Counter:
    """One pod's process. ``bad``: share of its requests that fail, spread evenly."""

    namespace: str
    pod: str
    born: int
    started: int = 0
    failed: int = 0
    samples: list[tuple[int, int, int]] = field(default_factory=list)  # ms, started, failed

    def take(self, requests: int, bad: float) -> None:
        self.started += requests
        self.failed = max(self.failed, round(self.started * bad)) if bad else self.failed

    def series(self, since: int, until: int) -> list[Series]:
        kept = [sample for sample in self.samples if since < sample[0] <= until]
        if not kept:
            return []
        target = {"namespace": self.namespace, "pod": self.pod, "job": "serving"}
        own = {**target, "model": "m", "version": "1", "digest": "d", "protocol": "rest"}

        def of(name: str, values: list[float], labels: dict[str, str]) -> Series:
            times = (sample[0] for sample in kept)
            return Series({"__name__": name, **labels}, tuple(zip(times, values, strict=True)))

        started = [float(sample[1]) for sample in kept]
        failed = [float(sample[2]) for sample in kept]
        good = [one - other for one, other in zip(started, failed, strict=True)]
        return [
            of("process_start_time_seconds", [self.born / 1000] * len(kept), target),
            of("fiduciary_requests_started_total", started, own),
            of("fiduciary_request_seconds_count", started, own),
            of("fiduciary_requests_total", good, {**own, "outcome": "success"}),
            of("fiduciary_requests_total", failed, {**own, "outcome": "server_error"}),
        ]


@dataclass
class MemoryPrometheus:
    """Implements :class:`fiduciary.engine.experiments.gather.Client`. ``away``: the reason why it does not answer."""

    away: Reason | None = None
    pods: dict[str, Counter] = field(default_factory=dict[str, Counter])
    queries: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    blind: bool = False  # it runs, and scrapes nothing

    def scrape(self, at: int) -> None:
        if not self.blind:
            for counter in self.pods.values():
                counter.samples.append((at, counter.started, counter.failed))

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        self.queries.append((promql, at))
        if self.away is not None:
            raise PrometheusError(self.away, "Prometheus is away")
        found = re.search(r"\[(\d+)ms\]$", promql)
        assert found is not None, promql
        since = at - int(found[1])
        return tuple(series for counter in self.pods.values() for series in counter.series(since, at))
