"""Half a minute in the life of six pods and of the Prometheus that scrapes them every second.

steady    counts all the time
restarted its container starts anew and counts from 0
blinded   its exposition fails for some seconds, over the edge of a block
removed   leaves service discovery: Prometheus marks its series as stale
late      is born, and found, in the middle
broken    shows NaN for a while
foreign   another namespace's pod, which claims in its own labels to be one of ours

In the end Prometheus is killed without warning and started again over the same folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fiduciary.clients.prometheus import Prometheus
from fiduciary.decide.counters.batches import Need, queries, tracks
from fiduciary.decide.counters.blocks import START, Samples, read
from fiduciary.decide.counters.deltas import Clock
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.counters.measures import Measure
from fiduciary.decide.counters.plan import Limit, Plan
from fiduciary.decide.counters.runtime import Runtime
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.experiment.times import first_edge
from tests.prometheus.server import SCRAPE, TIMEOUT, Exporter, Server, Target, program, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fiduciary.decide.counters.blocks import Reading
    from fiduciary.decide.counters.samples import Series
    from fiduciary.decide.counters.state import Counters
    from fiduciary.decide.experiment.world import ClosedBlock

BLOCK = 4  # s
CHAMPION, CHALLENGER = Workload("quant", "m-aaaaaaaa"), Workload("quant", "m-bbbbbbbb")
RUNTIME = Runtime()


def pod(workload: Workload, name: str, namespace: str = "quant") -> Target:
    target = Target(namespace, f"{workload.name}-7d9c5-{name}")
    target.add(success=1_000, server_error=10)  # it has a past
    return target


@dataclass
class Told:
    """What happened. Times are seconds since 1970."""

    server: Server
    plan: Plan
    steady: Target
    restarted: Target
    blinded: Target
    removed: Target
    late: Target
    broken: Target
    foreign: Target
    at: dict[str, float] = field(default_factory=dict)
    state: Counters = START
    blocks: list[ClosedBlock] = field(default_factory=list)
    """Closed one after the other, while it happened."""

    @property
    def changes(self) -> tuple[Change, ...]:
        return (Change(0, 1, 50, 0),)

    def look(self) -> Reading:
        """What the operator does at each interval: ask for what follows the last edge, close what can be closed."""
        now = round(time.time() * 1000)
        reading = self.reading(self.state, now)
        self.state = reading.state
        self.blocks += reading.blocks
        return reading

    def reading(self, state: Counters, now: int) -> Reading:
        return read(self.plan, state, self.samples(state, now), self.changes, now)

    def samples(self, state: Counters, now: int) -> Samples:
        since = self.plan.edge(state.last) - self.plan.clock.before
        needs = [Need(workload, (250,), since, now, 4) for workload in (CHAMPION, CHALLENGER)]
        series = [
            found
            for query in queries(RUNTIME, needs, SCRAPE * 1000)
            for found in self.ask(query.promql, query.at, matrix=True)
        ]
        by_workload = tracks(RUNTIME, series, (250,))
        return Samples(by_workload.get(CHAMPION, {}), by_workload.get(CHALLENGER, {}))

    def ask(self, promql: str, at: int, *, matrix: bool = False) -> tuple[Series, ...]:
        async def query() -> tuple[Series, ...]:
            prometheus = Prometheus(self.server.url, timeout=20)
            try:
                return await (prometheus.matrix(promql, at) if matrix else prometheus.vector(promql, at))
            finally:
                await prometheus.close()

        return asyncio.run(query())


def planned() -> Plan:
    errors = Limit(Measure("errors", "ErrorRate"), "Runtime")
    slow = Limit(Measure("slow", "LatencyAbove", 0), "Runtime")
    origin = first_edge(int(time.time()) + 3 * SCRAPE, BLOCK)
    return Plan(origin, BLOCK, Clock(SCRAPE * 1000, TIMEOUT * 1000), "Runtime", (250,), (errors, slow), ((0, errors),))


@contextlib.contextmanager
def told(folder: Path) -> Iterator[Told]:
    exporter = Exporter()
    server = Server(program(), folder, exporter)
    try:
        server.start()
        yield _happens(server)
    finally:
        server.kill()
        exporter.close()


def _happens(server: Server) -> Told:
    steady, blinded = pod(CHAMPION, "steady"), pod(CHAMPION, "blinded")
    restarted, removed, broken = (pod(CHALLENGER, name) for name in ("restarted", "removed", "broken"))
    late = Target("quant", f"{CHALLENGER.name}-7d9c5-late")
    foreign = pod(CHALLENGER, "foreign", "elsewhere")
    foreign.extra = (
        'fiduciary_requests_started_total{namespace="quant",pod="m-bbbbbbbb-7d9c5-spoof",protocol="grpc"} 5\n'
    )
    first = (steady, blinded, restarted, removed, broken, foreign)
    server.scrape(first)
    for target in first:
        wait(lambda target=target: len(target.served) > 1, 30, f"the second scrape of {target.pod}")
    plan = planned()
    happened = Told(server, plan, steady, restarted, blinded, removed, late, broken, foreign)
    ended = threading.Event()
    traffic = threading.Thread(target=_traffic, args=(ended, (*first, late)))
    traffic.start()
    try:
        _chapters(happened, first)
    finally:
        ended.set()
        traffic.join()
    # what is left is settled, and read once more
    last = plan.closable(round(time.time() * 1000))
    wait(lambda: happened.look().state.last > last, 40, "a block that is closed after everything has happened")
    return happened


def _traffic(ended: threading.Event, targets: tuple[Target, ...]) -> None:
    while not ended.wait(0.03):
        for number, target in enumerate(targets):
            if not math.isnan(target.counts.get("success", 0)):
                target.add(success=1 + number % 3)
                if int(time.time() * 10) % 7 == 0:
                    target.add(server_error=1)


def _chapters(happened: Told, first: tuple[Target, ...]) -> None:
    """Each begins a while after an edge, so that it falls into the middle of a block, and ends when it was seen."""
    plan, server = happened.plan, happened.server

    def until(block: float) -> None:
        edge = plan.origin + block * BLOCK
        while time.time() < edge:
            time.sleep(max(0.0, min(0.5, edge - time.time())))
            happened.look()

    until(1.4)
    happened.restarted.restart()
    happened.at["restarted"] = time.time()
    until(1.6)
    happened.late.started = time.time()
    happened.late.add(success=0, server_error=0)
    server.scrape((*first, happened.late))
    happened.at["late"] = time.time()
    until(2.5)
    server.scrape(tuple(target for target in (*first, happened.late) if target is not happened.removed))
    happened.at["removed"] = time.time()
    hidden = happened.broken.counts["success"]
    with happened.broken.lock:
        happened.broken.counts["success"] = math.nan
    until(2.7)
    happened.blinded.failing = True
    happened.at["blinded"] = time.time()
    until(3.3)
    with happened.broken.lock:
        happened.broken.counts["success"] = hidden
    happened.blinded.failing = False
    happened.at["sees"] = time.time()
    wait(lambda: not server.scrapes(happened.removed), 40, "discovery to drop the removed pod")
    wait(lambda: happened.late.served, 40, "the late pod's first scrape")
    number = math.ceil((time.time() - plan.origin) / BLOCK)
    until(number + 0.5)
    server.kill()
    happened.at["killed"] = time.time()
    while time.time() < plan.origin + (number + 1.2) * BLOCK:
        time.sleep(0.1)
    server.start()
    happened.at["back"] = time.time()
    until(number + 2.6)
