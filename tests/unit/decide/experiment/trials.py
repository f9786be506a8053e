"""A ModelExperiment with the model, gateway, Prometheus and ledger around it, played minute by minute."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.api.versions import VersionRef
from fiduciary.decide.experiment.decision import Decision
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.world import (
    ArmCounts,
    ClosedBlock,
    Comparison,
    GoneBack,
    Health,
    History,
    LedgerRow,
    Live,
    ModelFacts,
    PodFacts,
    Recorded,
    Route,
    Spending,
    World,
)
from fiduciary.decide.modelexperiment import decide
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.dispersion import Dispersion
from tests.unit.decide.worlds import NAME, NAMESPACE, PLATFORM, merged

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday, 07:00 in New York
UID = "99999999-2222-3333-4444-555555555555"
XNYS: dict[str, Any] = {
    "timeZone": "America/New_York",
    "weekmask": "1111100",
    "open": "09:30",
    "close": "16:00",
    "holidays": ["2026-11-26", "2026-12-25"],
    "special": {"2026-11-27": ["09:30", "13:00"]},
    "from": "2024-01-02",
    "to": "2027-11-24",
}
QUIET = replace(PLATFORM, calendars={"XNYS": XNYS})

SPEC: dict[str, Any] = {
    "modelRef": {"name": NAME},
    "champion": {"version": "7"},
    "challenger": {"version": "8"},
    "purpose": "Refresh",
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 3},
            {"name": "canary", "weight": 10, "minBlocks": 3},
            {"name": "half", "weight": 50, "minBlocks": 5},
        ]
    },
    "evidence": {"dispersion": "1"},
    "stopping": {"minDuration": "1m", "maxDuration": "1d"},
}
CHAMPION = VersionRef(version="7", digest="sha256:" + "7" * 64)
CHALLENGER = VersionRef(version="8", digest="sha256:" + "8" * 64)
FACTS = ModelFacts(
    label="Volatility",
    panel=False,
    horizon=1,
    champion=CHAMPION,
    active=("spx-volatility-8", UID),
    editor="dev@desk",
)


def experiment(spec: dict[str, Any] | None = None, **metadata: Any) -> ModelExperiment:
    return ModelExperiment.model_validate(
        {
            "metadata": {
                "name": "spx-volatility-8",
                "namespace": NAMESPACE,
                "uid": UID,
                "generation": 1,
                "creationTimestamp": T0.isoformat(),
                **metadata,
            },
            "spec": merged(SPEC, spec or {}),
        }
    )


def past(rate: float = 0.005, blocks: int = 0, each: int = 300, name: str = "errors") -> History:
    """A champion whose bad requests came evenly."""
    bad = round(blocks * each * rate)
    dispersion: Any = Dispersion.start(-1 - blocks)
    for k in range(blocks):
        share = Counts(each, (bad * (k + 1)) // blocks - (bad * k) // blocks)
        dispersion = dispersion.fold(k - blocks, k - blocks, share)
    return History(name, Counts(blocks * each, bad), dispersion)


def row(number: int, d: float, source: str = "Prequential", entities: int = 1, **parts: Any) -> LedgerRow:
    """A session in which the challenger's loss is lower by ``d``."""
    day = datetime(2010, 1, 4, tzinfo=UTC) + timedelta(days=number)
    return LedgerRow(number, f"{day:%Y-%m-%d}", source, entities, d * entities, d * d * entities, **parts)  # type: ignore[arg-type]


def sessions(mean: float, count: int, first: int = 0, source: str = "Prequential") -> tuple[LedgerRow, ...]:
    """Differences of sd near 1 with this mean: a fixed zigzag, no randomness."""
    return tuple(row(first + k, mean + math.sqrt(2.0) * math.sin(2.399963 * (first + k)), source) for k in range(count))


@dataclass
class Trial:
    """The world around one experiment. Everything may be changed between two calls of :meth:`minute`."""

    spec: dict[str, Any] = field(default_factory=dict[str, Any])
    model: ModelFacts = FACTS
    spending: Spending = field(default_factory=Spending)
    history: tuple[History, ...] = (past(),)
    platform: Any = QUIET
    per_minute: int = 300
    bad: tuple[float, float] = (0.005, 0.005)
    share: float | None = None  # the challenger's real share of requests; None: as the route says
    misrouted: int = 0
    seen: bool = True  # Prometheus answers
    health: Health = field(default_factory=Health)
    live: Live = field(default_factory=lambda: Live((), PodFacts(ready=1), PodFacts(ready=1)))
    ready: tuple[int, int] = (1, 1)
    follows: bool = True  # the model writes the route that is asked for
    procedures_known: bool = True
    same_configuration: bool = True
    champion: VersionRef | None = CHAMPION
    challenger: VersionRef | None = CHALLENGER
    recorded: Recorded | None = None
    comparison: Comparison | None = None
    approvals: tuple[Any, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    now: datetime = T0
    state: State | None = None
    route: Route = field(default_factory=lambda: Route(confirmed=True))
    blocks: tuple[ClosedBlock, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    status: Any = None
    decisions: list[Decision] = field(default_factory=list[Decision])
    closed: int = 0  # blocks that are closed since the start
    twice: bool = False  # judge each world twice: the same inputs, the same bits

    def world(self) -> World:
        mx = experiment(self.spec, **self.metadata)
        if self.status is not None:
            mx = mx.model_copy(update={"status": self.status})
        champion_ready, challenger_ready = self.ready
        route = replace(self.route, champion_ready=champion_ready, challenger_ready=challenger_ready)
        return World(
            mx, self.model, self.platform, self.champion, self.challenger, self.state, self.blocks, self.ledger,
            self.history, self.spending, self.live, route, self.health, self.approvals, self.recorded,
            procedures_known=self.procedures_known, same_configuration=self.same_configuration,
            comparison=self.comparison,
        )  # fmt: skip

    def evaluate(self) -> Decision:
        """Decide, store state and status through JSON, and let the model follow."""
        world = self.world()
        decision = decide(world, self.now)
        if self.twice:
            assert decide(world, self.now) == decision
        if decision.state is not None:
            stored = decode(State, json.loads(json.dumps(encode(decision.state))))
            assert stored == decision.state
            self.state = stored  # type: ignore[assignment]
            self.blocks, self.ledger = (), ()
        self.status = decision.status
        self.decisions.append(decision)
        if self.follows and decision.traffic is not None:
            wish = decision.traffic
            self.route = Route(wish.challenger, wish.mirror, confirmed=True)
        elif self.follows:
            self.route = Route(confirmed=True)
        return decision

    def counts(self) -> ClosedBlock:
        """The next block, with bad requests spread evenly over time (no randomness)."""
        weight, mirror = self.route.weight, self.route.mirror
        share = weight / 100 if self.share is None or weight == 0 else self.share
        challenger = round(self.per_minute * share)
        champion = self.per_minute - challenger
        copies = round(self.per_minute * mirror / 100)
        k = self.closed

        def bad(n: int, rate: float) -> int:
            return min(n, math.floor((k + 1) * n * rate + 0.5) - math.floor(k * n * rate + 0.5))

        name = self.spec.get("guardrails", [{"name": "errors"}])[0]["name"]
        test = ArmCounts(
            name,
            Counts(champion, bad(champion, self.bad[0])),
            Counts(challenger, bad(challenger, self.bad[1])),
            challenger_mirror=Counts(copies, bad(copies, self.bad[1])),
        )
        return ClosedBlock(k, k, weight, mirror, (champion, challenger), (test,), self.misrouted)

    def minute(self) -> Decision:
        """One block passes. While Prometheus is away nothing closes; the next block then covers the gap."""
        self.now += timedelta(minutes=1)
        if self.state is None or not self.seen:
            if self.state is not None:
                missed = self.health.champion_missed + 1
                self.health = Health(missed, missed, message="Prometheus does not answer")
            return self.evaluate()
        self.health = replace(self.health, champion_missed=0, challenger_missed=0)
        block = self.counts()
        passed = int((self.now.timestamp() - self.state.terms.origin) // 60)
        last = max(passed - 1, self.closed)
        if self.state.evidence.last + 1 == self.closed:
            self.blocks = (*self.blocks, replace(block, last=last))
            self.closed = last + 1
        return self.evaluate()

    def minutes(self, count: int) -> Decision:
        decision = self.minute()
        for _ in range(count - 1):
            decision = self.minute()
        return decision

    def until(self, reason: str, limit: int = 400) -> Decision:
        """Play until this reason is given."""
        for _ in range(limit):
            decision = self.minute()
            if decision.ruling.reason == reason:
                return decision
        seen = [d.ruling.reason for d in self.decisions[-5:]]
        raise AssertionError(f"{reason} did not come within {limit} minutes, last {seen}: {decision.ruling.message}")

    def record(self) -> None:
        """The model writes the record of the last verdict."""
        last = self.decisions[-1]
        verdict = last.ruling.verdict
        assert verdict in ("Promote", "RollBack", "KeepChampion")
        assert last.ruling.rule.final
        if self.recorded is not None:
            gone = GoneBack(self.recorded.sequence + 1, last.ruling.reason, last.ruling.message)
            self.recorded = replace(self.recorded, rolled_back=gone)
        else:
            self.recorded = Recorded(verdict, last.ruling.reason, last.ruling.message, 9, self.now)
