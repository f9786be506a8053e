"""Experiments on the sandbox's real node: a promotion under load, and total failure until the route is written.

Everything is what a user has: MLflow, Contour and Envoy, model servers, Prometheus scraping every 5 s. Nothing is
mirrored before the broken challenger gets half of the requests: clients see what a mirror would have spared them.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import sandboxed
from bench.experiment_replay import Tape, identical
from bench.results import progress
from bench.sandboxed import Measured
from tests.e2e.experiments import SCRAPE, Trial, broken, judged, sound, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.load import Report
    from tests.e2e.serving import Service

RATE = 220.0
FAILURES = 2
TEMPLATE = {
    "traffic": {"steps": steps(half=50)},
    "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}],
}
GOALS = {
    "rollback_scrape_intervals_total_failure": "≤ 2",
    "failed_requests_promotion": 0,
    "failed_requests_after_rollback_write": 0,
    "load_rps": "≥ 200",
    "replay_identical": 1,
}


def measure() -> Measured:
    """On the sandbox that FIDUCIARY_SANDBOX names. Raises LookupError where it is not up."""
    with sandboxed.served() as (service, market):
        progress("apply, train, judge, serve")
        return _measure(Trial.begin(service, market, judged("spx", TEMPLATE)))


def _measure(trial: Trial) -> Measured:
    promotion = _promotion(trial)
    failures = [_failure(trial, number) for number in range(FAILURES)]
    reports = [promotion.report, *(one.report for one in failures)]
    intervals = [one.seconds / SCRAPE for one in failures]
    figures = {
        "rollback_scrape_intervals_total_failure": statistics.median(intervals),
        "failed_requests_promotion": float(len(promotion.report.failed)),
        "failed_requests_after_rollback_write": float(sum(one.after for one in failures)),
        "load_rps": min(report.rate for report in reports),
        "replay_identical": float(promotion.identical),
    }
    rows: list[dict[str, object]] = [
        {"what": "first weight -> promotion recorded", "value": promotion.seconds, "unit": "s"},
        {"what": "requests during it", "value": len(promotion.report.sent), "unit": ""},
        {"what": "of them failed", "value": len(promotion.report.failed), "unit": ""},
        {"what": "p99 during it", "value": promotion.report.latency(0.99) * 1e3, "unit": "ms"},
        {"what": "blocks replayed from the stored samples", "value": promotion.blocks, "unit": ""},
    ]
    for number, one in enumerate(failures, start=1):
        rows += [
            {"what": f"failure {number}: first bad answer -> route written", "value": one.seconds, "unit": "s"},
            {"what": f"failure {number}: bad answers until then", "value": one.before, "unit": ""},
            {"what": f"failure {number}: bad answers after it", "value": one.after, "unit": ""},
            {"what": f"failure {number}: last of them after the write", "value": one.last, "unit": "s"},
        ]
    return Measured("experiments on the node, through the Gateway", figures, rows)


@dataclass(frozen=True)
class Promotion:
    """seconds: from the first record that gave it weight to the one that promoted it."""

    seconds: float
    report: Report
    blocks: int
    identical: bool


def _promotion(trial: Trial) -> Promotion:
    service = trial.service
    progress(f"a better challenger under {RATE:.0f} requests per second")
    with trial.loaded(RATE) as client:
        client.until_answered(100)
        second = trial.train(sound(architecture="Linear"))
        with Tape.of(service, trial.name(second)) as tape:
            trial.until_ended(second, "Promoted")
        service.until_serves(second)
        client.until_answered(300, second["version"])
        report = client.stop()
    first, last = (_decided(record) for record in (trial.records(second)[0], trial.verdict(second)))
    progress("the same blocks once more, from the samples that Prometheus keeps")
    blocks, same = identical(service.cluster, tape)
    trial.champion = second
    return Promotion(last - first, report, blocks, same)


def _decided(record: Mapping[str, str]) -> float:
    from tests.e2e.experiments import moment

    return moment(record["decidedAt"])


@dataclass(frozen=True)
class Failure:
    """seconds: from the first bad answer until the API server had the route; last: from then to the last one, sent."""

    seconds: float
    before: int
    after: int
    last: float
    report: Report


def _failure(trial: Trial, number: int) -> Failure:
    progress(f"total failure {number + 1} of {FAILURES}")
    with trial.loaded(RATE) as client:
        client.until_answered(100)
        bad = trial.train(broken("error", seed=100 + number))
        with RouteWatch(trial.service, bad["digest"]) as route:
            client.until(lambda report: bool(report.failed), "the challenger fails", within=120)
            trial.until_ended(bad, "RolledBack")
            written = route.without(within=30)
        trial.until_only(trial.champion)
        client.until_answered(400, trial.champion["version"])
        report = client.stop()
    return _judged(report, written)


def _judged(report: Report, written: float) -> Failure:
    bad = report.failed
    late = report.since(written).failed
    return Failure(written - bad[0].at, len(bad) - len(late), len(late), max(0.0, bad[-1].at - written), report)


@dataclass
class RouteWatch:
    """When the route stopped giving a version weight, by this machine's clock, as the API server's watch tells it."""

    service: Service
    digest: str
    _since: float | None = None
    _weighed: bool = False
    _found: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> RouteWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._found.set()

    def without(self, within: float) -> float:
        """Seconds since the epoch. Raises TimeoutError."""
        if not self._found.wait(within) or self._since is None:
            raise TimeoutError("the route was not seen to lose the version's weight")
        return self._since

    def _watch(self) -> None:
        name, namespace = self.service.name, self.service.namespace
        short = self.digest.removeprefix("sha256:")[:12]

        def lost(route: Mapping[str, object]) -> bool:
            refs = route["spec"]["rules"][0].get("backendRefs", [])  # type: ignore[index]
            weight = sum(ref.get("weight", 1) for ref in refs if ref["name"].endswith(short))
            self._weighed = self._weighed or weight > 0
            if self._weighed and weight == 0:
                self._since = time.time()
            return self._since is not None or self._found.is_set()

        self.service.cluster.until("route", name, namespace, lost, 300, "the version loses its weight")
        self._found.set()
