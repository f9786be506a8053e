"""One DriftPolicy in memory, with a scorer that counts rows, a Prometheus that scrapes it, and MLflow's artifacts.

Seven rows come each minute, so that a window of 21 ends every three. What the FinancialModel does is done by hand; the
policy's reconcile, its questions and its judgement are the real ones; the process may end at each of its writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.clients.mlflow import RegistryError
from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.drift import series
from fiduciary.decide.drift.report import stored
from fiduciary.decide.drift.state import State
from fiduciary.engine import kinds
from tests.unit.decide.drift.newest import newest
from tests.unit.decide.drift.watch import NAMES, QUIET, SPEC, document, draw, reference
from tests.unit.decide.logs import Log
from tests.unit.decide.worlds import NAME, NAMESPACE, SERVED, merged
from tests.unit.decide.worlds import SPEC as MODEL
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.mortal import Mortal
from tests.unit.engine.rig import Clock, Process
from tests.unit.engine.trial_story import Still

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.decide.counters.samples import Valued

DP = "spx"
MANIFEST = json.dumps({"files": {"drift_reference.json": hashlib.sha256(document()).hexdigest()}}).encode()
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
SCRAPE, MINUTE = 15, 60
WEIGHTS = np.array([0.5, 0.1, 0.2])


@dataclass
class Artifacts:
    """MLflow, as far as :class:`fiduciary.engine.drift.references.References` asks it."""

    away: bool = False
    reference: bytes = field(default_factory=document)
    asked: int = 0

    async def artifact(self, run_id: str, path: str, most: int = 1 << 20) -> bytes | None:
        self.asked += 1
        if self.away:
            raise RegistryError("RegistryUnreachable", "no answer from http://mlflow:5000 (away)")
        return {"version/manifest.json": MANIFEST, "version/drift_reference.json": self.reference}.get(path)


@dataclass
class Scorer:
    """What the outcome scorer counts of one version, and Prometheus' samples of it."""

    edges: str = field(default_factory=lambda: reference().edges_digest)
    away: str = ""  # the reason why Prometheus does not answer
    queries: list[str] = field(default_factory=list[str])
    value: float | None = 0.0  # of every query of a monitor
    rows: int = 0
    samples: list[tuple[int, dict[tuple[tuple[str, str], ...], int]]] = field(default_factory=list)  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        its = reference()
        self.counts = [np.zeros(len(one.edges) + 1, dtype=int) for one in (*its.features, its.prediction)]
        self.lost = [0, 0, 0]

    def take(self, raw: np.ndarray, lost: int = 0) -> None:
        """Rows; the first ``lost`` of them lack the first feature."""
        its = reference()
        for index, row in enumerate(raw):
            values = (*row, float(row @ WEIGHTS))
            for place, (one, value) in enumerate(zip((*its.features, its.prediction), values, strict=True)):
                if place == 0 and index < lost:
                    self.lost[0] += 1
                else:
                    self.counts[place][int(np.searchsorted(one.edges, value, side="left"))] += 1
        self.rows += len(raw)

    def scrape(self, at: int) -> None:
        found: dict[tuple[tuple[str, str], ...], int] = {}

        def show(name: str, value: int, **labels: str) -> None:
            found[(("__name__", name), *sorted(labels.items()))] = value

        show(series.ROWS, self.rows)
        if self.rows:
            show(series.REFERENCE, 1, reference=self.edges)
            for name, bins, lost in zip(NAMES, self.counts, self.lost, strict=False):
                for number, count in enumerate(bins):
                    show(series.FEATURES, int(count), feature=name, bin=str(number))
                show(series.MISSING, lost, feature=name)
            for number, count in enumerate(self.counts[3]):
                show(series.PREDICTION, int(count), bin=str(number))
        self.samples.append((at, found))

    def _answer(self, promql: str) -> None:
        self.queries.append(promql)
        if self.away:
            raise PrometheusError(self.away, "Prometheus is away")  # type: ignore[arg-type]

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        self._answer(promql)
        return self._raw(promql, at)

    async def values(self, promql: str, at: int) -> Sequence[Valued]:
        self._answer(promql)
        return newest(promql, self._raw(promql, at))

    def _raw(self, promql: str, at: int) -> tuple[Series, ...]:
        names, milliseconds = re.search(r'__name__=~"([^"]+)"', promql), re.search(r"\[(\d+)ms\]", promql)
        assert names is not None, promql
        assert milliseconds is not None, promql
        wanted, since = set(names[1].split("|")), at - int(milliseconds[1])
        target = {"namespace": NAMESPACE, "pod": "fiduciary-outcomes-6d5f-x2x9k", "model": f"{NAMESPACE}.{NAME}"}
        target |= {"version": "8", "digest": DIGEST.removeprefix("sha256:")[:8]}
        found: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
        for moment, values in self.samples:
            if since < moment <= at:
                for labels, value in values.items():
                    if labels[0][1] in wanted:
                        found.setdefault(labels, []).append((moment, float(value)))
        return tuple(Series({**target, **dict(labels)}, tuple(samples)) for labels, samples in found.items())

    async def vector(self, promql: str, at: int) -> tuple[Series, ...]:
        self._answer(promql)
        return () if self.value is None else (Series({}, ((at, self.value),)),)


class DriftStory(Mortal):
    """Everything may be changed between two windows. ``shift``: of the inputs' mean, in standard deviations."""

    horizon = 0.0

    def __init__(self, die_at: int = -1, spec: dict[str, Any] | None = None, *, seen: bool = True) -> None:
        super().__init__(die_at)
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.scorer = Scorer()
        self.artifacts = Artifacts()
        self.seen = seen
        self.log = Log()
        self.shift, self.lost = 0.0, 0
        self.rng = np.random.default_rng(11)
        self.told: list[tuple[Any, ...]] = []  # what alerts were put
        self.undelivered = ""
        self.scraped = self.milliseconds
        self._model()
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "DriftPolicy"}
        self.cluster.put(
            kinds.DRIFTPOLICY,
            {**head, "metadata": {"namespace": NAMESPACE, "name": DP}, "spec": merged(SPEC, spec or {})},
        )
        self.process = self.born()

    # -- what is there

    @property
    def milliseconds(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    @property
    def policy(self) -> DriftPolicy:
        return DriftPolicy.model_validate(self.cluster.objects["DriftPolicy", NAMESPACE, DP])

    @property
    def state(self) -> State:
        evidence = self.policy.status.evidence
        assert evidence is not None
        found = stored(evidence)
        assert isinstance(found, State), found
        return found

    @property
    def events(self) -> list[tuple[str, str]]:
        """(reason, note)."""
        return [(body["reason"], body["note"]) for key, body in self.cluster.objects.items() if key[0] == "Event"]

    @property
    def records(self) -> list[dict[str, Any]]:
        found = [body["spec"] for key, body in self.cluster.objects.items() if key[0] == "ModelDecision"]
        return sorted(found, key=lambda spec: spec["sequence"])

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(one for one in self.policy.status.conditions if one.type == kind)
        return found.status, found.reason, found.message

    def born(self) -> Process:
        process = Process(
            self.cluster,
            MemoryRegistry(),
            self.clock,
            judge=Still,
            order=self.order,
            checkpoint=self.point,
            platform=QUIET,
            prometheus=self.scorer if self.seen else None,
            artifacts=self.artifacts,
            alerting=self,
        )
        process.start()
        return process

    def died(self, where: str) -> None:
        """Nothing acts on an alarm that is not in the status."""
        known = {alarm.digest for alarm in self.state.alarms} if self.policy.status.evidence else set()
        for spec in self.records:
            if spec["action"] == "Alarm" and spec["evidence"]["summary"]["alarms"][0]["digest"] not in known:
                self.broken.append(f"a record of an alarm that the status does not have (died before {where})")

    # -- who is told

    def put(self, key: Any, channel: str, alerts: tuple[Any, ...], *, sink: str | None = None) -> None:
        self.told.append((channel, alerts))

    def drop(self, key: Any) -> None:
        self.told.append(("dropped", ()))

    def problem(self, key: Any) -> str:
        return self.undelivered

    # -- the model, by hand

    def _model(self) -> None:
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel"}
        spec = merged(MODEL, merged(SERVED, {"promotion": {"mode": "Auto"}, "data": {"asOf": "Rolling"}}))
        metadata = {"namespace": NAMESPACE, "name": NAME}
        self.cluster.put(kinds.FINANCIALMODEL, {**head, "metadata": metadata, "spec": spec})
        version = {"version": "8", "digest": DIGEST, "runId": "8" * 32, "asOf": "2020-12-31"}
        self.write("Accept", to={**version, "role": "Champion"}, cause={"kind": "Initial"})
        self.write("Shift", to=version, traffic={"champion": 100}, cause={"kind": "Initial"})

    def write(self, action: str, **parts: Any) -> None:
        """One more record, by somebody else."""
        self.log.records = [self._stored(spec) for spec in self.records]
        made = self.log.write(action, decidedAt=self.clock.now().isoformat(), **parts)
        spec = made.spec.model_dump(by_alias=True, exclude_none=True, mode="json", exclude_defaults=True)
        metadata = {"namespace": NAMESPACE, "name": made.metadata.name}
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "ModelDecision", "metadata": metadata}
        self.cluster.put(kinds.MODELDECISION, {**head, "spec": spec})

    @staticmethod
    def _stored(spec: dict[str, Any]) -> Any:
        from fiduciary.api.modeldecision import ModelDecision

        name = f"{spec['modelRef']['name']}-{spec['sequence']}"
        return ModelDecision.model_validate({"metadata": {"name": name}, "spec": spec})

    # -- time

    def minute(self, rows: int = 7) -> None:
        """Rows come at its begin, the scorer is scraped, the operator works."""
        if rows:
            self.scorer.take(draw(self.rng, rows, self.shift), self.lost)
        until = self.clock.seconds + MINUTE
        while self.clock.seconds < until:
            self.clock.seconds += SCRAPE
            self.scorer.scrape(self.milliseconds)
            self.settle()

    def windows(self, number: int) -> None:
        for _ in range(3 * number):
            self.minute()
        self.minute(rows=0)  # the last row is scraped, settled and asked for

    def until_alarm(self, limit: int = 40) -> None:
        for _ in range(limit):
            if self.policy.status.phase == "Drifted":
                return
            self.windows(1)
        raise AssertionError(f"no alarm: {self.policy.status.phase} {self.policy.status.monitors}")
