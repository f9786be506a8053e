"""Metrics of the loop. Where controller-runtime has a name for it, the name is the same, so that existing dashboards
and alerts for operators work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily

import fiduciary
from fiduciary.api.modeldecision import DecisionAction
from fiduciary.engine.kinds import Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from fiduciary.engine.mirror import Store

NAME = "fiduciary"
disable_created_metrics()  # a second time series for each counter, which nobody reads
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of one operator process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge("fiduciary_build_info", "The operator's release; always 1", ["version"], registry=self.registry)
        build.labels(version=fiduciary.__version__).set(1)
        self._children: dict[tuple[object, ...], Any] = {}
        self.reconciles = self._counter(
            "controller_runtime_reconcile_total", "Reconciles by result", "controller", "result"
        )
        self.errors = self._counter("controller_runtime_reconcile_errors_total", "Reconciles that failed", "controller")
        self.terminal = self._counter(
            "controller_runtime_terminal_reconcile_errors_total", "Reconciles that no retry can mend", "controller"
        )
        self.reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Time of a reconcile",
            ["controller"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "Time that a key waited",
            ["name", "controller"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.retries = self._counter("workqueue_retries_total", "Keys put back after a failure", "name", "controller")
        self.adds = self._counter("workqueue_adds_total", "Keys added", "name", "controller")
        self.requests = self._counter("rest_client_requests_total", "Requests to the API server", "code", "method")
        self.writes = self._counter("fiduciary_writes_total", "Mutating requests by verb and kind", "verb", "kind")
        self.registry_requests = self._counter(
            "fiduciary_registry_requests_total", "Requests to MLflow", "endpoint", "code"
        )
        self.ledger_requests = self._counter(
            "fiduciary_operator_ledger_requests_total", "Requests to outcome scorers", "what", "code"
        )
        self.alert_posts = self._counter(
            "fiduciary_alert_posts_total",
            "Requests to receivers of alerts by entry of the settings",
            "receiver",
            "code",
        )
        self.decisions = self._counter("fiduciary_decisions_total", "Records written by action", "action")
        for action in get_args(DecisionAction):
            self.decisions.labels(action=action)  # from 0: increase() does not see a counter that begins with 1
        self.stale_events = self._counter("fiduciary_mirror_stale_events_total", "Old news that was dropped", "kind")
        self.phantoms = self._counter("fiduciary_mirror_phantoms_total", "Lost deletions that a sweep found", "kind")
        self.missing = self._counter("fiduciary_mirror_missing_total", "Lost events that a sweep found", "kind")
        self.probes = self._counter(
            "fiduciary_operator_probes_total", "Signed requests to what is served", "via", "protocol", "outcome"
        )
        self.probe_seconds = Histogram(
            "fiduciary_operator_probe_seconds",
            "Time of a prediction asked by a probe",
            ["via", "protocol"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.probes_stale = self._counter("fiduciary_operator_probes_stale_total", "Results that became too old")
        self.queries = self._counter(
            "fiduciary_prometheus_queries_total", "Questions to Prometheus by kind of counter", "template"
        )
        self.query_errors = self._counter(
            "fiduciary_prometheus_errors_total", "Questions to Prometheus without an answer", "template", "reason"
        )
        self.query_seconds = Histogram(
            "fiduciary_prometheus_query_seconds",
            "Time of a question to Prometheus",
            ["template"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.leader = Gauge(
            "leader_election_master_status", "1: this replica holds the Lease", ["name"], registry=self.registry
        )

    def reconciled(self, controller: str, result: str, seconds: float) -> None:
        """One reconcile of a key."""
        self._child(self.reconciles, controller, result).inc()
        self._child(self.reconcile_seconds, controller).observe(seconds)

    def request(self, verb: str, kind: str, status: int) -> None:
        """One request to the API server; status 0 means that no answer came."""
        method = _METHODS.get(verb, verb.upper())
        self._child(self.requests, str(status) if status else "<error>", method).inc()
        if method != "GET" and 200 <= status < 300:
            self._child(self.writes, verb, kind).inc()

    def registry_request(self, endpoint: str, status: int) -> None:
        self.registry_requests.labels(endpoint=endpoint, code=str(status) if status else "<error>").inc()

    def ledger_request(self, what: str, status: int) -> None:
        """One request to an outcome scorer: heads, rows, define or end; status 0 means that no answer came."""
        self.ledger_requests.labels(what=what, code=str(status) if status else "<error>").inc()

    def alert_post(self, receiver: str, status: int) -> None:
        """One request to an Alertmanager or a sink; status 0 means that no answer came."""
        self.alert_posts.labels(receiver=receiver, code=str(status) if status else "<error>").inc()

    def watch_queue(self, depth: Callable[[], int], running: Callable[[], int], workers: int) -> None:
        """Gauges that are read when somebody scrapes, so that the hot path does not keep them up to date."""
        queue = Gauge("workqueue_depth", "Keys that wait", ["name", "controller"], registry=self.registry)
        queue.labels(name=NAME, controller=NAME).set_function(depth)
        active = Gauge(
            "controller_runtime_active_workers", "Reconciles under way", ["controller"], registry=self.registry
        )
        active.labels(controller=NAME).set_function(running)
        limit = Gauge("controller_runtime_max_concurrent_reconciles", "Workers", ["controller"], registry=self.registry)
        limit.labels(controller=NAME).set(workers)

    def probed(self, via: str, protocol: str, outcome: str, seconds: float) -> None:
        """One probe; outcome: ok, foreign (an answer, but not of ours), 4xx, 5xx or unanswered."""
        self._child(self.probes, via, protocol, outcome).inc()
        if outcome == "ok":
            self._child(self.probe_seconds, via, protocol).observe(seconds)

    def watch_probes(self, targets: Callable[[], int], failing: Callable[[], int]) -> None:
        Gauge("fiduciary_operator_probe_targets", "What is probed", registry=self.registry).set_function(targets)
        Gauge(
            "fiduciary_operator_probe_targets_failing", "Targets whose last probe failed", registry=self.registry
        ).set_function(failing)

    def asked(self, template: str, seconds: float, error: str = "") -> None:
        """One question to Prometheus; ``error``: the reason why there is no answer."""
        self._child(self.queries, template).inc()
        if error:
            self._child(self.query_errors, template, error).inc()
        else:
            self._child(self.query_seconds, template).observe(seconds)

    def watch_experiments(self, counted: Callable[[], int]) -> None:
        Gauge(
            "fiduciary_experiments_counted", "Experiments whose requests are counted", registry=self.registry
        ).set_function(counted)

    def watch_policies(self, counted: Callable[[], int]) -> None:
        Gauge(
            "fiduciary_drift_policies_counted", "DriftPolicies whose rows are counted", registry=self.registry
        ).set_function(counted)

    def watch_stores(self, stores: Iterable[Store[object]], clock: Callable[[], float] = time.monotonic) -> None:
        self.registry.register(_Stores(tuple(stores), clock))

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        """``metric.labels(...)`` for a fraction of its price: it checks and locks at each call."""
        child = self._children.get((metric, *labels))
        if child is None:
            child = self._children[metric, *labels] = metric.labels(*labels)
        return child

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name.removesuffix("_total"), text, labels, registry=self.registry)


class _Stores:
    """Size of the mirror and age of the last event by kind, and what our own objects say of themselves."""

    def __init__(self, stores: tuple[Store[object], ...], clock: Callable[[], float]) -> None:
        self._stores = stores
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("fiduciary_mirror_objects", "Objects in the mirror", labels=["kind"])
        age = GaugeMetricFamily("fiduciary_watch_last_event_age_seconds", "Since the last event", labels=["kind"])
        synced = GaugeMetricFamily("fiduciary_mirror_synced", "1: listed once, completely", labels=["kind"])
        objects = GaugeMetricFamily(
            "fiduciary_objects",
            "Objects by phase and status of Stalled (True: a person has to act), with its reason, else that of Ready",
            labels=["kind", *Said._fields],
        )
        now = self._clock()
        for store in self._stores:
            kind = store.resource.kind
            size.add_metric([kind], len(store))
            synced.add_metric([kind], 1.0 if store.synced else 0.0)
            if store.last_event is not None:
                age.add_metric([kind], now - store.last_event)
            for words, number in store.said.items():
                objects.add_metric([kind, *cast("Said", words)], number)
        yield objects
        yield size
        yield age
        yield synced


_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "apply": "PATCH",
    "apply_status": "PATCH",
    "delete": "DELETE",
}
