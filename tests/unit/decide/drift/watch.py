"""A DriftPolicy with model, scorer and Prometheus around it, played row by row. The reference is the trainer's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.versions import StandingVersion, VersionRef
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.decision import Decision
from fiduciary.decide.drift.reference import Reference, parsed
from fiduciary.decide.drift.state import FeatureCounts, Reading, State
from fiduciary.decide.drift.world import Health, ModelFacts, QueryValue, SessionLoss, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.evidence.codec import decode, encode
from fiduciary_trainer.drift_reference import Reference as TrainerReference
from fiduciary_trainer.drift_reference import drift_reference
from fiduciary_trainer.forecast_reference import Forecasts
from tests.unit.decide.experiment.trials import XNYS
from tests.unit.decide.worlds import NAME, NAMESPACE, PLATFORM, merged

if TYPE_CHECKING:
    from fiduciary.evidence.refusal import Refusal

T0 = datetime(2026, 11, 2, 21, 0, tzinfo=UTC)
UID = "77777777-2222-3333-4444-555555555555"
QUIET = replace(PLATFORM, calendars={"XNYS": {**XNYS, "to": "2039-12-30"}})
VERSION = "sha256:" + "8" * 64
CHAMPION = StandingVersion(version="8", digest=VERSION, since=T0, as_of="2025-06-30")
PREVIOUS = VersionRef(version="7", digest="sha256:" + "7" * 64)
FACTS = ModelFacts(label="Volatility", champion=CHAMPION, previous=PREVIOUS, calendar="XNYS")
NAMES = ("fast", "heavy", "slow")
MEMORY = (1, 1, 66)

SPEC: dict[str, Any] = {
    "modelRef": {"name": NAME},
    "window": {"rows": 21},
    "falseAlarms": {"ertWindows": 200},
    "monitors": [
        {
            "name": "inputs",
            "histogram": {"metric": "feature"},
            "statistic": "PSI",
            "actions": ["Alert", "Retrain"],
        },
    ],
}


def draw(rng: np.random.Generator, rows: int, shift: float = 0.0) -> np.ndarray:
    """Independent rows of three features: normal, Student t with 3 degrees, normal."""
    return np.column_stack([rng.normal(size=rows) + shift, rng.standard_t(3, size=rows), rng.normal(size=rows)])


@lru_cache(maxsize=8)
def document(rows: int = 2100, seed: int = 1, probabilities: bool = False) -> bytes:
    """What the trainer logs for a model fitted on ``rows`` days. ``probabilities``: of an event, honest ones."""
    rng = np.random.default_rng(seed)
    raw = draw(rng, rows)
    forecast = raw @ np.array([0.5, 0.1, 0.2])
    days = np.datetime64("2017-01-02") + np.arange(rows)
    return drift_reference(
        TrainerReference(
            dates=days,
            entity=np.full(rows, ""),
            names=NAMES,
            memory=MEMORY,
            raw=raw,
            inputs=raw,
            prediction=forecast,
        ),
        days,
        losses := rng.chisquare(1, size=rows),
        _walk(np.random.default_rng(seed), forecast, losses, probabilities),
    )


def _walk(rng: np.random.Generator, forecast: np.ndarray, losses: np.ndarray, probabilities: bool) -> Forecasts:
    days = np.arange(len(forecast))
    if not probabilities:
        return Forecasts(days, forecast + np.sqrt(losses), forecast, probabilities=False)
    likely = rng.uniform(0.35, 0.65, size=len(days))
    return Forecasts(days, (rng.random(len(days)) < likely).astype(float), likely, probabilities=True)


@lru_cache(maxsize=8)
def reference(rows: int = 2100, seed: int = 1, probabilities: bool = False) -> Reference:
    found = parsed(json.loads(document(rows, seed, probabilities)))
    assert isinstance(found, Reference), found
    return found


def policy(spec: dict[str, Any] | None = None, **metadata: Any) -> DriftPolicy:
    base = {"name": "spx", "namespace": NAMESPACE, "uid": UID, "generation": 1, "creationTimestamp": T0.isoformat()}
    return DriftPolicy.model_validate({"metadata": {**base, **metadata}, "spec": merged(SPEC, spec or {})})


@lru_cache(maxsize=64)
def _calibration(
    spec: str, version: str, rows: int, seed: int, label: Any, probabilities: bool
) -> Calibrated | Refusal:
    return calibrated(policy(json.loads(spec)).spec, UID, version, label, reference(rows, seed, probabilities))


@dataclass
class Watch:
    """The world around one policy. Everything may be changed between two days."""

    spec: dict[str, Any] = field(default_factory=dict[str, Any])
    model: ModelFacts | None = FACTS
    platform: Any = QUIET
    rows: int = 2100
    seed: int = 1
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    now: datetime = T0
    state: State | None = None
    status: Any = None
    health: Health = field(default_factory=Health)
    probabilities: bool = False  # the reference holds a calibration
    ledger: str = ""
    outcomes: str = ""  # why they are not read
    edges: str | None = "same"  # what the scorer says; same: the reference's
    missing: tuple[int, ...] = (0, 0, 0)
    readings: tuple[Reading, ...] = ()
    queries: tuple[QueryValue, ...] = ()
    sessions: tuple[SessionLoss, ...] = ()
    counts: Any = None
    lost: Any = None
    counted: int = 0
    decisions: list[Decision] = field(default_factory=list[Decision])

    def __post_init__(self) -> None:
        its = reference(self.rows, self.seed)
        assert its.joint is not None
        self.counts = [np.zeros(len(one.edges) + 1, dtype=int) for one in (*its.features, its.prediction, its.joint)]
        self.lost = np.zeros(3, dtype=int)

    @property
    def calibrated(self) -> Calibrated | Refusal:
        version = self.model.champion.digest if self.model and self.model.champion else ""
        label = self.model.label if self.model else "Volatility"
        return _calibration(json.dumps(self.spec), version or "", self.rows, self.seed, label, self.probabilities)

    def world(self) -> World:
        dp = policy(self.spec, **self.metadata)
        if self.status is not None:
            dp = dp.model_copy(update={"status": self.status})
        edges = reference(self.rows, self.seed).edges_digest if self.edges == "same" else self.edges
        return World(
            dp, self.model, self.platform, self.calibrated, self.state, self.readings, self.queries, self.sessions,
            edges, self.health, self.ledger, self.outcomes,
        )  # fmt: skip

    def reading(self) -> Reading:
        its = reference(self.rows, self.seed)
        features = tuple(
            FeatureCounts(one.name, tuple(map(int, counts)), int(gone))
            for one, counts, gone in zip(its.features, self.counts, self.lost, strict=False)
        )
        return Reading(
            int(self.now.timestamp() * 1000), self.counted, features, *(tuple(map(int, one)) for one in self.counts[3:])
        )

    def serve(self, raw: np.ndarray) -> None:
        """Rows that the scorer counts, one a day; the first ``missing`` rows of each call lack a feature."""
        its, joint = reference(self.rows, self.seed), json.loads(document(self.rows, self.seed))["joint"]
        assert its.joint is not None
        whiten, center = np.array(joint["whiten"]), np.array(joint["center"])
        for index, row in enumerate(raw):
            self.now += timedelta(days=1)
            together = float(np.linalg.norm(whiten @ (row - center)))
            values = (*row, float(row @ np.array([0.5, 0.1, 0.2])), together)
            for place, (one, value) in enumerate(zip((*its.features, its.prediction, its.joint), values, strict=True)):
                if place < 3 and index < self.missing[place]:
                    self.lost[place] += 1
                elif place < 4 or index >= max(self.missing):  # a row that is not whole has no distance
                    self.counts[place][int(np.searchsorted(one.edges, value, side="left"))] += 1
            self.counted += 1
            self.readings = (*self.readings, self.reading())

    def evaluate(self) -> Decision:
        """Decide, and store state and status through JSON."""
        world = self.world()
        decision = decide(world, self.now)
        assert decide(world, self.now) == decision
        if decision.state is not None:
            stored = decode(State, json.loads(json.dumps(encode(decision.state))))
            assert stored == decision.state
            self.state = stored  # type: ignore[assignment]
            self.readings, self.queries, self.sessions = self.readings[-1:], (), ()
        self.status = decision.status
        self.decisions.append(decision)
        return decision

    def window(self, rng: np.random.Generator, shift: float = 0.0) -> Decision:
        self.serve(draw(rng, 21, shift))
        return self.evaluate()

    def until_alarm(self, rng: np.random.Generator, shift: float, limit: int = 60) -> Decision:
        for _ in range(limit):
            decision = self.window(rng, shift)
            if any(its.state == "Drifted" for its in decision.status.monitors):
                return decision
        raise AssertionError(f"no alarm within {limit} windows: {decision.status.monitors}")
