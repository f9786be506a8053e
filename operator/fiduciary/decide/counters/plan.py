"""What is read for one experiment, fixed when it starts: another source or threshold would be another experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.counters.deltas import Clock, fields_of
from fiduciary.decide.counters.measures import Measure, Window
from fiduciary.decide.counters.state import FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection

    from fiduciary.api.experiment import CircuitBreaker, ExperimentTemplate, Guardrail

Source = Literal["Gateway", "Runtime"]
GATEWAY_EDGES = (
    *(1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000),
    *(1_800_000, 3_600_000),
)
"""Bucket edges of Envoy's histograms in milliseconds, unless its bootstrap says otherwise; Contour's does not."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One guardrail or breaker. ``source``: whose counters measure it."""

    measure: Measure
    source: Source


@dataclass(frozen=True, slots=True)
class Plan:
    """How counters of one experiment become blocks.

    Attributes:
        origin: wall-clock edge (s) at which block 0 begins, a multiple of ``block``.
        block: seconds.
        thresholds: latency thresholds, ms, ascending: the places behind a unit's fields.
        guardrails: in the order of the spec.
        breakers: (index in the spec, test); those that no request counter measures are missing.
        patience: the route's request timeout, ms: later answers are failures.
    """

    origin: int
    block: int
    clock: Clock
    source: Source
    thresholds: tuple[int, ...]
    guardrails: tuple[Limit, ...]
    breakers: tuple[tuple[int, Limit], ...]
    patience: int = 2_000

    @property
    def fields(self) -> int:
        return fields_of(self.thresholds)

    def edge(self, number: int) -> int:
        """Milliseconds of the end of block ``number``; -1: the origin."""
        return (self.origin + (number + 1) * self.block) * 1000

    @property
    def pod_edges(self) -> frozenset[int]:
        """Places, among a unit's values, of the latency thresholds that are counted by the pods."""
        limits = (*self.guardrails, *(limit for _, limit in self.breakers))
        found = ((limit.source, limit.measure.threshold) for limit in limits)
        return frozenset(len(FIELDS) + place for source, place in found if source == "Runtime" and place is not None)

    def closable(self, now: int) -> int:
        """The last block whose edge is settled at ``now`` (ms); -2 before the origin is."""
        return max(-2, (now - self.clock.settled - self.origin * 1000) // (self.block * 1000) - 1)

    def window(self, length: int) -> Window:
        return Window(length, self.patience)


def planned(
    template: ExperimentTemplate,
    *,
    origin: int,
    scrape_seconds: int,
    timeout_seconds: int,
    patience_ms: int,
    gateway: bool,
    meshed: bool = False,
    runtime_edges: Collection[int] | None = None,
) -> Plan | str:
    """The plan of an experiment; a message where its spec asks for what cannot be measured.

    ``gateway``: the counters of the gateway's proxies are known. ``meshed``: a mesh stands behind them (backend
    Seldon), so that they tell no version from another. ``runtime_edges``: latency edges (ms) of the serving runtime's
    histograms; None: they have every one that a spec names.
    """
    block = timedelta_of(template.evidence.block).total_seconds()
    if block != int(block) or block < scrape_seconds:
        return (
            f"spec.evidence.block is {template.evidence.block}; it has to be whole seconds and no shorter than the "
            f"{scrape_seconds} s between two scrapes of Prometheus"
        )
    asked = template.evidence.requests
    if meshed and asked == "Gateway":
        return (
            "spec.evidence.requests is Gateway, and the gateway's counters know Seldon's mesh, no version behind it: "
            "write requests: Auto, and they are counted where they are answered"
        )
    gateway = gateway and not meshed
    if asked == "Gateway" and not gateway:
        return (
            "spec.evidence.requests is Gateway, but the operator's settings name no gateway whose counters it knows: "
            "set prometheus.gateway, or write requests: Auto"
        )
    source: Source = "Gateway" if gateway and asked != "Runtime" else "Runtime"
    limits = (*template.guardrails, *template.circuit_breakers)
    thresholds = sorted({milliseconds for limit in limits if (milliseconds := _threshold(limit)) is not None})
    guardrails: list[Limit] = []
    for guardrail in template.guardrails:
        test = _test(guardrail, guardrail.name, source, thresholds, runtime_edges)
        if isinstance(test, str):
            return test
        if test.source != source and template.traffic.steps[-1].mirror > 0:
            return (
                f"{guardrail.name}: slower requests than {guardrail.threshold} are counted by the pods only, which "
                "cannot tell copies from live requests; use a threshold that the gateway counts "
                f"({', '.join(f'{edge}ms' for edge in GATEWAY_EDGES[:10])}, ...), or no mirror in the last step"
            )
        guardrails.append(test)
    breakers: list[tuple[int, Limit]] = []
    for index, breaker in enumerate(template.circuit_breakers):
        if breaker.metric == "PaperDrawdown":
            continue
        test = _test(breaker, f"breaker-{index}", source, thresholds, runtime_edges)
        if isinstance(test, str):
            return test
        breakers.append((index, test))
    return Plan(
        origin=origin,
        block=int(block),
        clock=Clock(scrape_seconds * 1000, timeout_seconds * 1000),
        source=source,
        thresholds=tuple(thresholds),
        guardrails=tuple(guardrails),
        breakers=tuple(breakers),
        patience=patience_ms,
    )


def _threshold(limit: Guardrail | CircuitBreaker) -> int | None:
    if limit.threshold is None:
        return None
    return int(timedelta_of(limit.threshold).total_seconds() * 1000)


def _test(
    limit: Guardrail | CircuitBreaker,
    name: str,
    source: Source,
    thresholds: list[int],
    runtime_edges: Collection[int] | None,
) -> Limit | str:
    threshold = _threshold(limit)
    if threshold is None:
        metric = "ClientErrorRate" if limit.metric == "ClientErrorRate" else "ErrorRate"
        return Limit(Measure(name, metric), source)
    measure = Measure(name, "LatencyAbove", thresholds.index(threshold))
    if source == "Gateway" and threshold in GATEWAY_EDGES:
        return Limit(measure, "Gateway")
    if runtime_edges is None or threshold in runtime_edges:
        return Limit(measure, "Runtime")  # requests slower than it are counted only on an edge of a histogram
    edges = ", ".join(f"{edge}ms" for edge in sorted(runtime_edges)) or "none"
    return (
        f"{name}: no histogram has a bucket that ends at {limit.threshold}, so slower requests are not counted; "
        f"use one of the runtime's edges ({edges})"
    )
