"""The engine's half of experiments around a simulated model: both judgements are the real ones, and drive each other.

What Prometheus and the scorer would say is made up here: requests a minute, the share of bad ones of each version, and
sessions in which a challenger is better. Status goes through JSON, as the API server would keep it.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from fiduciary.api.modelexperiment import ComparedVersion, FinalRuling, Folded, ModelExperiment
from fiduciary.decide import identity
from fiduciary.decide.experiment.facts import facts, pair, same_configuration
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.experiment.spent import spent, tried
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.world import ArmCounts, ClosedBlock, Live, PodFacts, Route, World
from fiduciary.decide.history import History, fold
from fiduciary.decide.modelexperiment import decide
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.codec import decode, encode
from tests.unit.decide.backends import HERE
from tests.unit.decide.experiment.trials import past, sessions
from tests.unit.decide.lives import LINEAR, served, trained
from tests.unit.decide.worlds import approval, merged

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.experiment.decision import Decision as Judgement
    from tests.unit.decide.simulated_world import SimulatedWorld

LONGEST_GAP = 20
WATCHED = replace(HERE, experiments=True)
TEMPLATE: dict[str, Any] = {
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 2},
            {"name": "canary", "weight": 10, "minBlocks": 2},
            {"name": "half", "weight": 50, "minBlocks": 3},
        ]
    },
    "evidence": {"dispersion": "1"},
    "stopping": {"minDuration": "1m", "maxDuration": "1d"},
}
AUTO: dict[str, Any] = {"promotion": {"mode": "Auto", "rollbackWindow": "1h", "experiment": TEMPLATE}}


@dataclass
class Laboratory:
    """Experiments of one model. A test turns what it wants to be seen."""

    sim: SimulatedWorld
    per_minute: int = 12_000
    bad: dict[str, float] = field(default_factory=dict[str, float])  # version -> share of bad requests
    gain: float = 0.2  # mean of the sessions' differences, in their sd
    sessions: int = 3000
    stopped: bool = False  # the engine does not reconcile experiments
    judged: list[Judgement] = field(default_factory=list["Judgement"])

    @property
    def history(self) -> History:
        return fold(self.sim.world.records)

    @property
    def experiments(self) -> dict[str, ModelExperiment]:
        return {one.metadata.name: one for one in self.sim.world.experiments}

    def one(self, name: str) -> ModelExperiment:
        return self.experiments[name]

    # -- the clock

    def seconds(self, count: int, step: int = 5) -> None:
        """Both halves work while time passes."""
        for _ in range(count // step):
            self.sim.advance(seconds=step)
            if not self.sim.gone:
                self.sim.settle()
            self.turn()

    def until(self, what: str, limit: int = 60) -> None:
        """Minutes pass until the newest record is of this action, or the followed experiment gives this reason."""
        for _ in range(limit * 3):
            seen = [one.status.reason for one in self.sim.world.experiments]
            if self.sim.actions[-1] == what or what in seen:
                return
            self.seconds(20)
        raise AssertionError(f"{what} did not come: {self.sim.actions}, {self.told()}")

    def told(self) -> list[str]:
        return [
            f"{one.metadata.name}: {one.status.phase} {one.status.step} {one.status.reason} "
            + next((c.message for c in one.status.conditions if c.type == "Ready"), "")
            for one in self.sim.world.experiments
        ]

    # -- the engine

    def turn(self) -> None:
        """One reconcile of each experiment."""
        for one in () if self.stopped else self.sim.world.experiments:
            self._reconcile(one)

    def _reconcile(self, mx: ModelExperiment) -> None:
        sim, history = self.sim, self.history
        known = recorded(sim.world.records, mx)
        going = mx.metadata.deletion_timestamp is not None
        if sim.gone or (going and (mx.status.evidence is None or known is not None)):
            self.remove(mx)
            return
        state = _state(mx)
        champion, challenger = pair(history, mx)
        spending = spent(sim.world.records).spending(
            (champion and champion.digest) or "", (challenger and challenger.digest) or "", tried(sim.world.records)
        )
        route = self._route(champion, challenger)
        world = World(
            mx,
            facts(mx, sim.model, history, sim.world.experiments),
            sim.world.platform,
            champion,
            challenger,
            state,
            () if state is None else self._blocks(state, champion, challenger, route),
            () if state is None or state.evidence.sessions.last >= 0 else sessions(self.gain, self.sessions),
            (past(0.005, 2000, self.per_minute),),
            spending,
            Live((), PodFacts(ready=route.champion_ready), PodFacts(ready=route.challenger_ready)),
            route,
            approvals=sim.world.approvals,
            recorded=known,
            same_configuration=same_configuration(history, champion, challenger),
            procedures_known=True,
            scrape_seconds=5,
        )
        judgement = decide(world, sim.now)
        self.judged.append(judgement)
        self._store(mx, world, judgement)

    def _store(self, mx: ModelExperiment, world: World, judgement: Judgement) -> None:
        status, old = judgement.status, mx.status
        update: dict[str, Any] = {"champion": old.champion, "challenger": old.challenger, "ruling": old.ruling}
        if judgement.state is not None:
            text = json.dumps(encode(judgement.state))
            update["evidence"] = Folded(through=self.sim.now, digest=identity.digest(text), state=text)
            if old.challenger is None:
                update |= {"champion": _compared(world.champion), "challenger": _compared(world.challenger)}
        answered = world.recorded is not None and judgement.ruling.verdict == "RollBack"
        if judgement.ruling.rule.final and (old.ruling is None or answered):
            verdict: Any = judgement.ruling.verdict
            update["ruling"] = FinalRuling(
                verdict=verdict,
                reason=judgement.ruling.reason,
                message=judgement.ruling.message,
                at=self.sim.now,
                summary=judgement.summary,
                reasons=judgement.grounds,
            )
        stored = json.loads(json.dumps(status.model_copy(update=update).body()))
        self.put(mx, status=stored)

    def _route(self, champion: VersionRef | None, challenger: VersionRef | None) -> Route:
        """What the gateway gives to this challenger, as the status tells it."""
        status, ready = self.sim.status, [self._ready(version) for version in (champion, challenger)]
        told, digest = status.traffic, challenger.digest if challenger is not None else ""
        weight = mirror = 0
        if told is not None and status.champion is not None and status.champion.digest == digest:
            weight = told.champion
        elif told is not None and status.challenger is not None and status.challenger.digest == digest:
            weight, mirror = told.challenger, told.mirror
        return Route(weight, mirror, told is not None and told.confirmed_at is not None, *ready)

    def _ready(self, version: VersionRef | None) -> int:
        digest = (version and version.digest) or ""
        model = self.sim.serving.deployment(digest, "Model")
        able = model.replicas if model is not None and model.name in self.sim.serving.mesh.available else 0
        pods = [self.sim.serving.deployment(digest, kind) for kind in ("Deployment", "InferenceService")]
        return max(able, *(0 if stored is None else stored.ready for stored in pods))

    def _blocks(
        self, state: State, champion: VersionRef | None, challenger: VersionRef | None, route: Route
    ) -> tuple[ClosedBlock, ...]:
        """Minutes that are closed since the last one, at the weights that are in force."""
        told, terms = self.sim.status.traffic, state.terms
        last = (int(self.sim.now.timestamp()) - 15 - terms.origin) // terms.block - 1
        made: list[ClosedBlock] = []
        first = state.evidence.last + 1
        if last - first > LONGEST_GAP:  # the operator was away: one merged block
            made.append(self._block(state, champion, challenger, route, first, last - 1, mixed=True))
            first = last
        for k in range(first, last + 1):
            begun = terms.origin + k * terms.block
            since = told.confirmed_at.timestamp() if told is not None and told.confirmed_at is not None else math.inf
            made.append(self._block(state, champion, challenger, route, k, k, mixed=since > begun))
        return tuple(made)

    def _block(
        self,
        state: State,
        champion: VersionRef | None,
        challenger: VersionRef | None,
        route: Route,
        first: int,
        last: int,
        *,
        mixed: bool,
    ) -> ClosedBlock:
        weight, mirror = route.weight, route.mirror
        mine = round(self.per_minute * weight / 100)
        test = ArmCounts(
            state.terms.guardrails[0].name,
            self._counts(champion, self.per_minute - mine, last),
            self._counts(challenger, mine, last),
            challenger_mirror=self._counts(challenger, round(self.per_minute * mirror / 100), last),
        )
        requests = (self.per_minute - mine, mine)
        return ClosedBlock(first, last, weight, mirror, requests, (test,), mixed=mixed)

    def _counts(self, version: VersionRef | None, n: int, k: int) -> Counts:
        """Bad requests, evenly."""
        rate = self.bad.get((version and version.version) or "", 0.005)
        return Counts(n, min(n, math.floor((k + 1) * n * rate + 0.5) - math.floor(k * n * rate + 0.5)))

    # -- what others do

    def put(self, mx: ModelExperiment, **parts: Any) -> None:
        """Store other parts of an experiment."""
        body = {"metadata": {**mx.metadata.body()}, "spec": mx.spec.body(), "status": mx.status.body()} | parts
        changed = ModelExperiment.model_validate(body)
        world = self.sim.world
        kept = tuple(changed if one.metadata.uid == mx.metadata.uid else one for one in world.experiments)
        self.sim.world = replace(world, experiments=kept)

    def remove(self, mx: ModelExperiment) -> None:
        """It is gone, with or without its finalizer."""
        world = self.sim.world
        kept = tuple(one for one in world.experiments if one.metadata.uid != mx.metadata.uid)
        self.sim.world = replace(world, experiments=kept)

    def delete(self, name: str) -> None:
        """A person deletes it; it stays until its verdict is recorded."""
        mx = self.one(name)
        self.put(mx, metadata={**mx.metadata.body(), "deletionTimestamp": self.sim.now.isoformat()})

    def edit(self, name: str, **spec: Any) -> None:
        mx = self.one(name)
        self.put(mx, spec=merged(mx.spec.body(), spec))

    def ruled(self, name: str, verdict: str, reason: str, **summary: Any) -> None:
        """The engine stored this ruling, whatever it saw."""
        mx = self.one(name)
        ruling = {
            "verdict": verdict,
            "reason": reason,
            "message": f"{reason} was seen",
            "at": self.sim.now.isoformat(),
            "summary": {"experiment": name, "purpose": mx.spec.purpose, **summary},
        }
        self.put(mx, status={**mx.status.body(), "ruling": ruling})

    def act(self, name: str, decision: str, approver: str = "ana@desk", **spec: Any) -> None:
        """A person's act on an experiment: one name each."""
        number = len(self.sim.world.approvals) + 1
        made = approval(f"act-{number}", decision, self.sim.now, approver, experiment=name, **spec)
        self.sim.advance(seconds=1)
        self.sim.approve(made)


def laboratory(spec: dict[str, Any] | None = None, *, retrain: bool = False) -> Laboratory:
    """A served model whose second version waits for its experiment; ``retrain``: of the same configuration."""
    return deepcopy(_laboratory(json.dumps(spec), retrain=retrain))


@cache
def _laboratory(given: str, *, retrain: bool) -> Laboratory:
    spec = json.loads(given)
    sim = served(merged(merged(AUTO, {"data": {"asOf": "Rolling"}} if retrain else {}), spec or {}), WATCHED)
    lab = Laboratory(sim)
    if retrain:
        sim.advance(days=1)
        sim.approve(approval("retrain", "Retrain", sim.now))
        sim.advance(seconds=1)
    else:
        sim.edit(LINEAR)
    trained(sim)
    return lab


def tried_to(step: str, spec: dict[str, Any] | None = None) -> Laboratory:
    """An experiment in this step, with its weights in force."""
    return deepcopy(_tried_to(step, json.dumps(spec)))


@cache
def _tried_to(step: str, spec: str) -> Laboratory:
    """Played once; what a test does with it is done to a copy."""
    lab = laboratory(json.loads(spec))
    for _ in range(200):
        traffic = lab.sim.status.traffic
        if traffic is not None and traffic.step == step and traffic.confirmed_at is not None:
            return lab
        lab.seconds(10)
    raise AssertionError(f"step {step} did not come: {lab.told()} {lab.sim.condition('PromotionPending')}")


def _state(mx: ModelExperiment) -> State | None:
    folded = mx.status.evidence
    return None if folded is None else decode(State, json.loads(folded.state))  # type: ignore[return-value]


def _compared(version: VersionRef | None) -> ComparedVersion | None:
    return None if version is None else ComparedVersion(version=version.version, digest=version.digest or "")


def newcomer(lab: Laboratory, seed: int) -> None:
    """Another version passes the gates."""
    lab.sim.edit({"training": {"seed": seed}})
    trained(lab.sim)
