"""The counters that experiments are judged by: integers, one set of series per version, all there from the start.

The registry is our own: MLServer's counters take model names from requests, and a caller's typing error must not become
a series.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from types import TracebackType

    from fiduciary_server.contract import Serving

Protocol = Literal["rest", "grpc"]
Outcome = Literal["success", "client_error", "server_error"]
PROTOCOLS: tuple[Protocol, ...] = ("rest", "grpc")
OUTCOMES: tuple[Outcome, ...] = ("success", "client_error", "server_error")
DROPPED = ("buffer_full", "refused", "shutdown")
"""Why a record is never sent: the buffer was full; the sink refuses its batch; the process ended first."""

_LABELS = ("model", "version", "digest")

prometheus_client.disable_created_metrics()


class Metrics:
    """All series of one version.

    Args:
        serving: names the version and the histogram's edges.
    """

    def __init__(self, serving: Serving) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = {"model": serving.name, "version": serving.version, "digest": serving.short_digest}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fiduciary_{name}", text, (*_LABELS, *labels), registry=self.registry)

        started = counter("requests_started", "Inference requests that began, probes not among them", "protocol")
        ended = counter("requests", "Inference requests that ended, probes not among them", "protocol", "outcome")
        probes_started = counter("probes_started", "Signed probes that began", "protocol")
        probes_ended = counter("probes", "Signed probes that ended", "protocol", "outcome")
        seconds = Histogram(
            "fiduciary_request_seconds",
            "Time from the first byte of a request to its answer, probes not among them",
            (*_LABELS, "protocol"),
            buckets=serving.latency_edges,
            registry=self.registry,
        )
        self._of = {
            (protocol, probe): _Series(
                (probes_started if probe else started).labels(**own, protocol=protocol),
                {
                    outcome: (probes_ended if probe else ended).labels(**own, protocol=protocol, outcome=outcome)
                    for outcome in OUTCOMES
                },
                None if probe else seconds.labels(**own, protocol=protocol),
            )
            for protocol in PROTOCOLS
            for probe in (False, True)
        }
        self.records = counter("records", "Prediction records made").labels(**own)
        dropped = counter("records_dropped", "Prediction records that are never sent", "reason")
        self.dropped = {reason: dropped.labels(**own, reason=reason) for reason in DROPPED}
        self._info = Gauge(
            "fiduciary_reference_info",
            "Hash of the edges that the bins of records are on; always 1",
            (*_LABELS, "reference"),
            registry=self.registry,
        )
        self._own = own
        self.in_flight = 0
        self.last_ended = time.monotonic()

    def request(self, protocol: Protocol, probe: bool) -> Request:
        """Count one request: as started now, as ended when the ``with`` block is left."""
        return Request(self, self._of[protocol, probe])

    def reference(self, sha256: str) -> None:
        """Name the drift reference's edges by their hash (hexadecimal)."""
        self._info.labels(**self._own, reference=sha256[:8]).set(1)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)


class _Series:
    __slots__ = ("ended", "seconds", "started")

    def __init__(self, started: Counter, ended: dict[Outcome, Counter], seconds: Histogram | None) -> None:
        self.started = started
        self.ended = ended
        self.seconds = seconds


class Request:
    """A request under way. It ends once, whatever happens to it: started = ended + in flight, always.

    Attributes:
        outcome: what it ends with; an exception that leaves the block unhandled is the server's error.
    """

    __slots__ = ("_began", "_metrics", "_series", "outcome")

    def __init__(self, metrics: Metrics, series: _Series) -> None:
        self._metrics = metrics
        self._series = series
        self.outcome: Outcome = "server_error"

    def __enter__(self) -> Request:
        self._began = time.perf_counter()
        self._metrics.in_flight += 1
        self._series.started.inc()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._series.ended[self.outcome].inc()
        if self._series.seconds is not None:
            self._series.seconds.observe(time.perf_counter() - self._began)
        self._metrics.in_flight -= 1
        self._metrics.last_ended = time.monotonic()
