"""Pods and a gateway that count requests, scraped as Prometheus does; what happened is known beside the samples.

Times are milliseconds. A process counts from 0 when it begins; what it counts after its last scrape nobody ever sees.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fiduciary.decide.counters.batches import tracks
from fiduciary.decide.counters.blocks import Samples
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.deltas import Clock
from fiduciary.decide.counters.measures import Measure
from fiduciary.decide.counters.plan import Limit, Plan
from fiduciary.decide.counters.runtime import Runtime
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.counters.templates import Workload

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

SCRAPE, TIMEOUT, BLOCK = 15_000, 10_000, 60
ORIGIN = 1_700_000_040  # s, a multiple of BLOCK
START = ORIGIN * 1000
CHAMPION, CHALLENGER = Workload("quant", "m-aaaaaaaa"), Workload("quant", "m-bbbbbbbb")
RUNTIME, CONTOUR = Runtime(), Contour(("projectcontour",))
THRESHOLD = 250  # ms


def plan(source: str = "Runtime", **changes: object) -> Plan:
    errors = Limit(Measure("errors", "ErrorRate"), source)  # type: ignore[arg-type]
    refused = Limit(Measure("refused", "ClientErrorRate"), source)  # type: ignore[arg-type]
    slow = Limit(Measure("slow", "LatencyAbove", 0), source)  # type: ignore[arg-type]
    made = Plan(
        origin=ORIGIN,
        block=BLOCK,
        clock=Clock(SCRAPE, TIMEOUT),
        source=source,  # type: ignore[arg-type]
        thresholds=(THRESHOLD,),
        guardrails=(errors, refused, slow),
        breakers=((0, Limit(Measure("breaker-0", "ErrorRate"), source)),),  # type: ignore[arg-type]
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    """``ended`` None: no answer, ever."""

    began: int
    ended: int | None
    outcome: str = "success"  # success | client_error | server_error


@dataclass
class Process:
    """One pod's server, or one cluster in one proxy."""

    pod: str
    born: int
    died: int | None = None
    phase: int = 0
    requests: list[Request] = field(default_factory=list)
    probes: list[Request] = field(default_factory=list)

    def lives(self, at: int) -> bool:
        return self.born <= at and (self.died is None or at < self.died)

    def scrapes(self, until: int, since: int | None = None) -> list[int]:
        """Times at which it is scraped, none of them skipped."""
        first = max(self.born, self.born if since is None else since)
        begin = -(-(first - self.phase) // SCRAPE) * SCRAPE + self.phase
        return [at for at in range(begin, until + 1, SCRAPE) if self.lives(at)]

    def began(self, at: int) -> int:
        return self.counts("began")(at)

    def answered(self, at: int, outcome: str) -> int:
        return self.counts("answered", outcome=outcome)(at)

    def ended(self, at: int) -> int:
        return self.counts("answered")(at)

    def counts(
        self, what: str, *, outcome: str | None = None, within: int | None = None, probes: bool = False
    ) -> Callable[[int], int]:
        """The counter as a function of time."""
        chosen = [
            request
            for request in (self.probes if probes else self.requests)
            if (outcome is None or request.outcome == outcome)
            and (within is None or (request.ended is not None and request.ended - request.began <= within))
        ]
        times = sorted(
            time for request in chosen if (time := request.began if what == "began" else request.ended) is not None
        )
        return lambda at: bisect.bisect_right(times, at)


def _series(name: str, labels: dict[str, str], times: Iterable[int], value: Callable[[int], float]) -> Series:
    return Series({"__name__": name, **labels}, tuple((at, value(at)) for at in times))


def pod_series(
    process: Process, until: int, skipped: frozenset[int] = frozenset(), job: str = "serving"
) -> list[Series]:
    """What Prometheus holds of a pod of our runtime."""
    times = [at for at in process.scrapes(until) if at not in skipped]
    if not times:
        return []
    target = {"namespace": "quant", "pod": process.pod, "job": job, "instance": "10.0.0.1:8082"}
    own = {**target, "model": "quant.m", "version": "7", "digest": "aaaaaaaa", "protocol": "rest"}
    slow = {**own, "le": "0.25"}
    made = [
        _series("process_start_time_seconds", target, times, lambda at: process.born / 1000),
        _series("fiduciary_requests_started_total", own, times, process.counts("began")),
        _series("fiduciary_request_seconds_count", own, times, process.counts("answered")),
        _series("fiduciary_request_seconds_bucket", slow, times, process.counts("answered", within=THRESHOLD)),
        _series("fiduciary_probes_started_total", own, times, process.counts("began", probes=True)),
        _series("fiduciary_probes_total", {**own, "outcome": "server_error"}, times, lambda at: 0),
    ]
    for outcome in ("success", "client_error", "server_error"):
        labels = {**own, "outcome": outcome}
        made.append(_series("fiduciary_requests_total", labels, times, process.counts("answered", outcome=outcome)))
    return made


def proxy_series(
    proxy: Process, cluster: str, cluster_born: int, until: int, skipped: frozenset[int] = frozenset()
) -> list[Series]:
    """What Prometheus holds of one cluster of an Envoy: series come with the cluster, code classes when first used."""
    times = [at for at in proxy.scrapes(until) if at not in skipped]
    known = [at for at in times if at >= cluster_born]
    target = {"namespace": "projectcontour", "pod": proxy.pod, "job": "envoy", "instance": "10.0.0.9:8002"}
    own = {**target, "envoy_cluster_name": cluster}
    made = [_series("envoy_server_uptime", target, times, lambda at: (at - proxy.born) // 1000)]
    if not known:
        return made
    prefix = "envoy_cluster_upstream_rq_"
    made += [
        _series(prefix + "total", own, known, proxy.counts("began")),
        _series(prefix + "pending_failure_eject", own, known, lambda at: 0),
        _series(prefix + "timeout", own, known, lambda at: 0),
        _series(prefix + "time_count", own, known, proxy.counts("answered")),
        _series(prefix + "time_bucket", {**own, "le": "250"}, known, proxy.counts("answered", within=THRESHOLD)),
    ]
    for outcome, code in (("success", "2"), ("client_error", "4"), ("server_error", "5")):
        count = proxy.counts("answered", outcome=outcome)
        used = [at for at in known if count(at)]
        if used:
            made.append(_series(prefix + "xx", {**own, "envoy_response_code_class": code}, used, count))
    return made


def of_pods(champion: Sequence[Series], challenger: Sequence[Series]) -> Samples:
    found = tracks(RUNTIME, [*champion, *challenger], (THRESHOLD,))
    return Samples(found.get(CHAMPION, {}), found.get(CHALLENGER, {}))


def of_all(pods: Sequence[Series], proxies: Sequence[Series]) -> Samples:
    """Both templates together."""
    one, other = tracks(RUNTIME, pods, (THRESHOLD,)), tracks(CONTOUR, proxies, (THRESHOLD,))
    return Samples(
        {**one.get(CHAMPION, {}), **other.get(CHAMPION, {})}, {**one.get(CHALLENGER, {}), **other.get(CHALLENGER, {})}
    )


def requests(
    chance: random.Random, count: int, since: int, until: int, *, bad: float = 0.1, lost: float = 0.05
) -> list[Request]:
    """Requests at random times in [since, until): some refused, some failed, some never answered."""
    made: list[Request] = []
    for _ in range(count):
        began = chance.randrange(since, max(since + 1, until))
        draw = chance.random()
        ended = None if draw < lost else began + chance.choice((5, 40, 300, 1_500))
        outcome = "server_error" if draw > 1 - bad else "client_error" if draw > 1 - 2 * bad else "success"
        made.append(Request(began, ended, outcome))
    return made
