"""The counters that experiments are judged by: integers, one set of series per version, all there from the start.

They are plain integers that only the event loop changes, turned into Prometheus' text when they are scraped: a request
pays a microsecond for them. The registry is our own: MLServer's counters take model names from requests, and a caller's
typing error must not become a series.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fiduciary_server.probes import ADDRESSED, Addressed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from prometheus_client.metrics_core import Metric

    from fiduciary_server.contract import Serving

Protocol = Literal["rest", "grpc"]
Outcome = Literal["success", "client_error", "server_error"]
PROTOCOLS: tuple[Protocol, ...] = ("rest", "grpc")
OUTCOMES: tuple[Outcome, ...] = ("success", "client_error", "server_error")
DROPPED = ("buffer_full", "refused", "shutdown")
"""Why a record is never sent: the buffer was full; the sink refuses its batch; the process ended first."""

_LABELS = ("model", "version", "digest")


class Metrics(Collector):
    """All series of one version.

    Args:
        serving: names the version and the histogram's edges.

    Attributes:
        in_flight: requests and probes under way.
        last_ended: when one last ended, on the monotonic clock.
    """

    def __init__(self, serving: Serving) -> None:
        self._own = (serving.name, serving.version, serving.short_digest)
        self._edges = serving.latency_edges
        self._requests = {protocol: _Series(self._edges) for protocol in PROTOCOLS}
        self._probes = {(protocol, whom): _Series(self._edges) for protocol in PROTOCOLS for whom in ADDRESSED}
        self._records = 0
        self._dropped = dict.fromkeys(DROPPED, 0)
        self._guard = threading.Lock()  # of the two above: large requests and the sender count from other threads
        self._reference: str | None = None
        self.in_flight = 0
        self.last_ended = time.monotonic()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def request(self, protocol: Protocol, probe: Addressed | None) -> Request:
        """Count one request, or probe: as started now, as ended when the ``with`` block is left."""
        return Request(self, self._requests[protocol] if probe is None else self._probes[protocol, probe])

    def recorded(self, count: int) -> None:
        """Records were made."""
        with self._guard:
            self._records += count

    def dropped(self, reason: str, count: int) -> None:
        """Records will never be sent."""
        with self._guard:
            self._dropped[reason] += count

    def reference(self, sha256: str) -> None:
        """Name the drift reference's edges by their hash (hexadecimal)."""
        self._reference = sha256[:8]

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        requests = [((protocol,), series) for protocol, series in self._requests.items()]
        yield from self._counters("requests", "Inference requests, probes not among them,", ("protocol",), requests)
        seconds = HistogramMetricFamily(
            "fiduciary_request_seconds",
            "Time from a request's headers to its answer, probes not among them",
            labels=(*_LABELS, "protocol"),
        )
        for labels, series in requests:
            counts = accumulate(series.buckets)
            buckets = list(zip((*map(floatToGoString, self._edges), "+Inf"), counts, strict=True))
            seconds.add_metric((*self._own, *labels), buckets, series.seconds)
        yield seconds
        yield from self._counters("probes", "Signed probes", ("protocol", "addressed"), list(self._probes.items()))
        records = CounterMetricFamily("fiduciary_records", "Prediction records made", labels=_LABELS)
        records.add_metric(self._own, self._records)
        yield records
        dropped = CounterMetricFamily(
            "fiduciary_records_dropped", "Prediction records that are never sent", labels=(*_LABELS, "reason")
        )
        for reason, count in self._dropped.items():
            dropped.add_metric((*self._own, reason), count)
        yield dropped
        info = GaugeMetricFamily(
            "fiduciary_reference_info",
            "Hash of the edges that the bins of records are on; always 1",
            labels=(*_LABELS, "reference"),
        )
        if self._reference is not None:
            info.add_metric((*self._own, self._reference), 1)
        yield info

    def _counters(
        self, kind: str, what: str, names: tuple[str, ...], series: list[tuple[tuple[str, ...], _Series]]
    ) -> Iterator[Metric]:
        started = CounterMetricFamily(f"fiduciary_{kind}_started", f"{what} that began", labels=(*_LABELS, *names))
        ended = CounterMetricFamily(f"fiduciary_{kind}", f"{what} that ended", labels=(*_LABELS, *names, "outcome"))
        for labels, each in series:
            started.add_metric((*self._own, *labels), each.started)
            for outcome, count in each.ended.items():
                ended.add_metric((*self._own, *labels, outcome), count)
        yield started
        yield ended


class _Series:
    """Counts of one protocol's requests, or of its probes of one kind."""

    __slots__ = ("buckets", "edges", "ended", "seconds", "started")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.started = 0
        self.ended: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
        self.buckets = [0] * (len(edges) + 1)
        self.seconds = 0.0


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
        self._metrics.in_flight += 1
        self._series.started += 1
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        now, series, metrics = time.monotonic(), self._series, self._metrics
        seconds = now - self._began
        series.ended[self.outcome] += 1
        series.buckets[bisect_left(series.edges, seconds)] += 1
        series.seconds += seconds
        metrics.in_flight -= 1
        metrics.last_ended = now
