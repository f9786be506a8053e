"""An experiment once more, from its first state and the samples that Prometheus keeps: the same bits, or not.

What the operator folded block by block, through whatever disturbed it, is folded here in one go from what was scraped.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.clients import prometheus_answers
from fiduciary.decide.counters import blocks
from fiduciary.decide.counters.batches import Need, queries, tracks
from fiduciary.decide.counters.blocks import Samples
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.plan import planned
from fiduciary.decide.counters.runtime import Runtime
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.experiment.fold import fold_block
from fiduciary.engine.experiments.kept import Stored, stored
from fiduciary.evidence.refusal import Refusal
from fiduciary.manifests.versionnames import version_name
from tests.e2e.experiments import SCRAPE

if TYPE_CHECKING:
    from fiduciary.decide.counters.exposure import Change
    from fiduciary.decide.counters.plan import Plan
    from fiduciary.decide.counters.templates import Template
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.serving import Service

TIMEOUT = 4
PATIENCE_MS = 10_000  # the default of spec.serving.gateway.timeouts.request
MOST = 5_000_000  # samples: one query holds the whole experiment
GATEWAY_NAMESPACES = ("projectcontour",)


@dataclass
class Tape:
    """Evidence of one experiment as its status held it until its verdict: the first one, the last one, and every change
    of the route."""

    service: Service
    name: str
    first: Stored | None = None
    last: Stored | None = None
    changes: dict[int, Change] = field(default_factory=dict)
    experiment: ModelExperiment | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, service: Service, name: str) -> Tape:
        return cls(service, name)

    def __enter__(self) -> Tape:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _follow(self) -> None:
        def kept(found: Object) -> bool:
            self._keep(found)
            return self._ended.is_set()

        cluster = self.service.cluster
        cluster.until("mx", self.name, self.service.namespace, kept, 1200, "the tape ends")

    def _keep(self, found: Object) -> None:
        experiment = ModelExperiment.model_validate(found)
        if experiment.status.evidence is None or experiment.status.ruling is not None:
            return  # after the verdict other tests watch what was promoted
        now = stored(experiment.status.evidence)
        if isinstance(now, Refusal) or (self.last is not None and not now.kept.changes):
            return
        self.first = self.first or now
        self.last, self.experiment = now, experiment
        self.changes |= {change.begun: change for change in now.kept.changes}


def identical(cluster: Cluster, tape: Tape) -> tuple[int, bool]:
    """(blocks folded, whether evidence on requests is the same to the last bit)."""
    assert tape.first is not None
    assert tape.last is not None
    assert tape.experiment is not None
    terms, begun, ended = tape.first.state.terms, tape.first.state.evidence, tape.last.state.evidence
    plan = planned(
        tape.experiment.spec,
        origin=terms.origin,
        scrape_seconds=SCRAPE,
        timeout_seconds=TIMEOUT,
        patience_ms=PATIENCE_MS,
        gateway=terms.transport,
    )
    assert not isinstance(plan, str), plan
    until = plan.edge(ended.last) + plan.clock.settled
    samples = _samples(cluster, tape, plan, begun.last, until)
    changes = sorted(tape.changes.values(), key=lambda change: change.begun)
    reading = blocks.read(plan, tape.first.kept.counters, samples, changes, until)
    again = begun
    for block in reading.blocks:
        if block.last <= ended.last:
            folded = fold_block(terms, again, block)
            assert not isinstance(folded, Refusal), folded
            again = folded
    same = replace(again, objectives=ended.objectives, sessions=ended.sessions) == ended
    return ended.last - begun.last, same


def _samples(cluster: Cluster, tape: Tape, plan: Plan, last: int, until: int) -> Samples:
    status = tape.experiment.status if tape.experiment else None
    assert status is not None
    arms: list[Workload] = []
    for compared in (status.champion, status.challenger):
        assert compared is not None
        arms.append(Workload(tape.service.namespace, version_name(tape.service.name, compared.digest)))
    found: dict[Workload, dict[str, object]] = {arm: {} for arm in arms}
    since = plan.edge(last) - plan.clock.before
    templates: list[Template] = [Runtime(), *([Contour(GATEWAY_NAMESPACES)] if plan.source == "Gateway" else [])]
    for template in templates:
        needs = [Need(arm, plan.thresholds, since, until, 4) for arm in arms]
        for query in queries(template, needs, SCRAPE * 1000, MOST):
            asked = {"query": query.promql, "time": f"{query.at / 1000:.3f}"}
            answer = cluster.service("monitoring", "prometheus", 9090, "api/v1/query", params=asked, timeout=60)
            series = prometheus_answers.decoded("prometheus", answer.status_code, answer.content).of("matrix")
            for workload, streams in tracks(template, series, plan.thresholds).items():
                if workload in found:
                    found[workload].update(streams)
    champion, challenger = (found[arm] for arm in arms)
    return Samples(champion, challenger)  # type: ignore[arg-type]
