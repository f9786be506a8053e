"""The simulator's operator is the operator: same evidence, weights, verdict and time as ``fiduciary.decide``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.decisions.arrays import select
from bench.decisions.operator_rules import SETTLE_SECONDS, Fiduciary, State, Step
from bench.decisions.outcome import KEPT, PROMOTED, ROLLED_BACK
from bench.decisions.traffic import CHALLENGER as B
from bench.decisions.traffic import CHAMPION as A
from bench.decisions.traffic import GUARDRAILS, Bursts, Dark, Seen, Tape, World
from fiduciary.decide.experiment.world import (
    Anchor,
    ArmCounts,
    ClosedBlock,
    Health,
    History,
    Live,
    LiveCounts,
    PodFacts,
    Route,
    Spending,
)
from fiduciary.decide.experiment.world import World as OperatorWorld
from fiduciary.decide.modelexperiment import decide
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.dispersion import Dispersion
from tests.unit.decide.experiment.trials import CHALLENGER, CHAMPION, FACTS, QUIET, T0, experiment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.decisions.proportions import Counts as ArrayCounts
    from fiduciary.decide.experiment.decision import Decision

CLOSE = 1e-9
PATHS = int(os.environ.get("PATHS", "3"))
CODES = {"Promote": PROMOTED, "RollBack": ROLLED_BACK, "KeepChampion": KEPT}
STEPS = (Step(0.0, 1.0, 4), Step(0.1, 0.0, 4), Step(0.5, 0.0, 8))
BUDGET = 70
READY = PodFacts(ready=2)


def spec(rule: Fiduciary) -> dict[str, Any]:
    names = ("shadow", "canary", "half")
    margin = {"absolute": f"{rule.margin}"}
    above, normal = rule.breaker or (1.0, 0.0)
    return {
        "traffic": {
            "steps": [
                {
                    "name": name,
                    "minBlocks": step.min_blocks,
                    **({"weight": round(100 * step.weight)} if step.weight else {}),
                    **({"mirror": round(100 * step.mirror)} if step.mirror else {}),
                }
                for name, step in zip(names, rule.steps, strict=False)
            ],
            **({"sticky": {"header": "fiduciary-bucket"}} if len(rule.steps) == 1 else {}),
        },
        "evidence": {"dispersion": f"{rule.dispersion}"},
        "guardrails": [
            {"name": "errors", "metric": "ErrorRate", "margin": margin},
            {"name": "latency", "metric": "LatencyAbove", "threshold": "250ms", "margin": margin},
        ],
        "circuitBreakers": [{"metric": "ErrorRate", "above": f"{above}", "normal": f"{normal}"}],
        "stopping": {"minDuration": f"{rule.min_duration}m", "maxDuration": f"{BUDGET}m"},
        "noData": {"maxHold": f"{rule.max_hold}m"},
    }


class Recording(Tape):
    """A tape that remembers what it said of the past."""

    def history(self) -> Iterator[dict[str, ArrayCounts]]:
        self.past = list(super().history())
        return iter(self.past)


def single(counts: ArrayCounts, r: int) -> Counts:
    return Counts(int(counts.trials[r]), int(counts.bad[r]))


def closed(parts: list[Seen], first: int, last: int, weight: int, mirror: int, r: int) -> ClosedBlock:
    """As Prometheus' counters give it: all that the gap hid comes as one block."""
    tests = []
    for name in GUARDRAILS:
        sums = [[single(part.arms[arm][name], r) for part in parts] for arm in (A, B)]
        champion, challenger = (Counts(sum(c.trials for c in s), sum(c.bad for c in s)) for s in sums)
        if weight == 0:
            tests.append(ArmCounts(name, champion, Counts(0, 0), challenger_mirror=challenger))
        else:
            tests.append(ArmCounts(name, champion, challenger))
    live = tuple(int(sum(part.live[arm][r] for part in parts)) for arm in (A, B))
    return ClosedBlock(first, last, weight, mirror, (live[0], live[1]), tuple(tests))


@dataclass
class Single:
    """One replication under the operator's own ``decide``."""

    world: OperatorWorld
    decision: Decision | None = None
    gap: list[Seen] | None = None
    first: int = 0
    missed: tuple[int, int] = (0, 0)
    ended: tuple[int, float] | None = None

    @classmethod
    def begin(cls, rule: Fiduciary, recipe: World, past: list[dict[str, ArrayCounts]], r: int) -> Single:
        history = []
        for name in GUARDRAILS:
            dispersion: Any = Dispersion.start(-1 - len(past))
            for at, minute in enumerate(past, start=-len(past)):
                dispersion = dispersion.fold(at, at, single(minute[name], r))
            sums = [single(minute[name], r) for minute in past]
            history.append(History(name, Counts(sum(c.trials for c in sums), sum(c.bad for c in sums)), dispersion))
        anchors = (
            Anchor("errors", float(recipe.errors[A]), float(rule.consumed[0])),
            Anchor("latency", float(recipe.slow[A]), float(rule.consumed[1])),
        )
        world = OperatorWorld(
            experiment=experiment(spec(rule)),
            model=FACTS,
            platform=QUIET,
            champion=CHAMPION,
            challenger=CHALLENGER,
            history=tuple(history),
            spending=Spending(anchors=anchors),
            live=Live(champion=READY, challenger=READY),
            route=Route(0, 0, True, 2, 2),
        )
        one = cls(world, gap=[])
        one.ask(0.0, 0.0)
        return one

    def ask(self, minute: float, at: float, **parts: Any) -> None:
        """One evaluation; what was folded is in the state that is stored."""
        if self.ended is not None:
            return
        world = replace(self.world, **parts)
        self.decision = decide(world, T0 + timedelta(minutes=minute + at))
        self.world = replace(self.world, state=self.decision.state, experiment=self.world.experiment)
        rule = self.decision.ruling.rule
        if rule.final and rule.verdict is not None:
            self.ended = (CODES[rule.verdict], minute + at)

    @property
    def weights(self) -> tuple[int, int]:
        assert self.decision is not None
        assert self.decision.traffic is not None
        return self.decision.traffic.challenger, self.decision.traffic.mirror

    def settle(self, minute: int, before: Seen, weights: tuple[int, int], r: int) -> None:
        """40 s into ``minute``: the minute before is settled, or dark."""
        assert self.gap is not None
        # counters report an arm to which nothing was sent as seen: it has no series that could be stale
        blind = before.dark[B] and weights != (0, 0)
        self.missed = (self.missed[A] + 1 if before.dark[A] else 0, self.missed[B] + 1 if blind else 0)
        blocks: tuple[ClosedBlock, ...] = ()
        if any(before.dark):
            self.gap.append(before)
        else:
            parts = [*self.gap, before]
            block = closed(parts, self.first, minute - 1, *weights, r)
            blocks = (replace(block, mixed=weights != self.in_force),)
            self.gap, self.first = [], minute
        health = Health(champion_missed=self.missed[A], challenger_missed=self.missed[B])
        self.ask(minute, SETTLE_SECONDS / 60.0, blocks=blocks, health=health, route=self.route())

    def route(self) -> Route:
        return Route(*self.in_force, True, 2, 2)

    in_force: tuple[int, int] = (0, 0)

    def scrape(self, minute: int, at: float, champion: Counts, challenger: Counts) -> None:
        live = Live(counts=(LiveCounts(0, champion, challenger),), champion=READY, challenger=READY)
        health = Health(champion_missed=self.missed[A], challenger_missed=self.missed[B])
        self.ask(minute, at, live=live, health=health, route=self.route())


def same_evidence(state: State, i: int, one: Single) -> None:
    assert one.world.state is not None
    evidence = one.world.state.evidence
    for its in evidence.guardrails:
        array = state.guardrails[its.name]
        assert array.harm.log_e()[i] == pytest.approx(its.harm_log_e, abs=CLOSE, rel=1e-11)
        assert array.noninferiority.log_e[i] == pytest.approx(its.noninferiority_log_e, abs=CLOSE, rel=1e-11)
    ratio = 0.0 if evidence.ratio is None else evidence.ratio.log_e
    assert state.ratio.log_e()[i] == pytest.approx(ratio, abs=1e-8)
    assert bool(state.ratio_alarm[i]) == evidence.ratio_alarm
    assert int(state.step[i]) == one.world.state.course.step
    assert int(state.blocks[i]) == one.world.state.course.blocks


def lockstep(rule: Fiduciary, recipe: World, paths: int, seed: int) -> list[int]:
    """Both play the same requests; returns the verdicts."""
    tape = Recording(recipe, np.random.default_rng(seed), paths)
    state = rule.start(recipe, tape, BUDGET)
    singles = [Single.begin(rule, recipe, tape.past, r) for r in range(paths)]
    verdicts: list[int] = []
    before: Seen | None = None
    served: list[tuple[int, int]] = []
    for minute in range(BUDGET + 2):
        route = rule.route(state, minute)
        for i, one in enumerate(singles):
            one.in_force = one.weights
            assert one.in_force == (round(100 * route.weight[i]), round(100 * route.mirror[i])), minute  # type: ignore[index]
        seen = tape.minute(route.weight, route.mirror)
        judged = rule.judge(state, minute, seen)
        suspects = {} if seen.suspects is None or any(seen.dark) else {int(r): k for k, r in enumerate(seen.suspects)}
        for i, one in enumerate(singles):
            for quarter in (1, 2, None, 3, 4):
                if quarter is None:
                    if before is not None:
                        one.settle(minute, before, served[i], i)
                elif i in suspects and minute + quarter / 4 < BUDGET:
                    champion, challenger = (single(arm, suspects[i]) for arm in seen.scrapes[quarter - 1])
                    one.scrape(minute, quarter / 4, champion, challenger)
            verdict = int(judged.verdict[i])
            assert (verdict != 0) == (one.ended is not None), (minute, verdict, one.ended)
            if one.ended is not None:
                at = float(np.broadcast_to(judged.at, len(singles))[i])
                assert one.ended == (verdict, pytest.approx(minute + at))
            else:
                same_evidence(state, i, one)
        left = judged.verdict == 0
        verdicts += judged.verdict[~left].tolist()
        before = select(replace(seen, suspects=None, scrapes=[]), left)
        served = [one.in_force for one, stays in zip(singles, left, strict=True) if stays]
        singles = [one for one, stays in zip(singles, left, strict=True) if stays]
        state = select(state, left)
        tape.keep(left)
        if not singles:
            break
    return verdicts


RULE = Fiduciary(margin=0.05, steps=STEPS, min_duration=10, max_hold=6, dispersion=1.5, evaluations=4 * BUDGET)
CLEAN = World(errors=(0.04, 0.04), slow=(0.03, 0.03), history_minutes=0)
KINDS: dict[str, tuple[Fiduciary, World]] = {
    "equal": (RULE, CLEAN),
    "better": (RULE, replace(CLEAN, errors=(0.08, 0.01), slow=(0.08, 0.01), per_minute=1000.0)),
    "worse": (RULE, replace(CLEAN, errors=(0.04, 0.08))),
    "slower": (RULE, replace(CLEAN, slow=(0.03, 0.09))),
    "all fail": (RULE, replace(CLEAN, errors=(0.005, 1.0))),
    "many fail": (RULE, replace(CLEAN, errors=(0.005, 0.3), per_minute=20.0)),
    "late": (RULE, replace(CLEAN, errors=(0.04, 0.12), onset=25)),
    "little traffic": (RULE, replace(CLEAN, per_minute=2.0)),
    "much traffic": (RULE, replace(CLEAN, per_minute=3000.0)),
    "drift": (RULE, replace(CLEAN, drift=lambda t: 1.0 + t / 30.0)),
    "bursts, estimated dispersion": (
        replace(RULE, least_blocks=1440),
        replace(CLEAN, bursts=Bursts(1.0, 0.9), history_minutes=1440),
    ),
    "both dark": (RULE, replace(CLEAN, dark=(Dark(10, 13), Dark(30, 31)))),
    "dark too long": (RULE, replace(CLEAN, dark=(Dark(10, 30),))),
    "challenger dark": (RULE, replace(CLEAN, dark=(Dark(12, 20, (B,)),))),
    "champion dark": (RULE, replace(CLEAN, dark=(Dark(12, 15, (A,)),))),
    "silence": (RULE, replace(CLEAN, volume=lambda t: 0.0 if 15 <= t < 20 else 1.0)),
    "resets": (RULE, replace(CLEAN, reset_every=10.0)),
    "router gives more": (RULE, replace(CLEAN, routed=1.6)),
    "router gives less": (RULE, replace(CLEAN, routed=0.5)),
    "eaten": (RULE, replace(CLEAN, eaten=0.3)),
    "sticky, not declared": (RULE, replace(CLEAN, sticky=True)),
    "sticky": (replace(RULE, steps=(Step(0.0, 1.0, 8),)), replace(CLEAN, sticky=True)),
    "sticky, better": (
        replace(RULE, steps=(Step(0.0, 1.0, 8),)),
        replace(CLEAN, sticky=True, errors=(0.08, 0.01), slow=(0.08, 0.01), per_minute=1000.0),
    ),
    "margin used up": (
        replace(RULE, consumed=(0.06, 0.0)),
        replace(CLEAN, errors=(0.08, 0.01), slow=(0.08, 0.01), per_minute=1000.0),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_evidence_weights_verdict_and_time(kind: str) -> None:
    rule, recipe = KINDS[kind]
    lockstep(rule, recipe, PATHS, 7)


def test_paths_end_in_every_way() -> None:
    """What is proven above is proven of promotions, rollbacks and kept champions."""
    seen = [set(lockstep(*KINDS[kind], 3, 8)) for kind in ("better", "worse", "dark too long")]
    assert seen == [{PROMOTED}, {ROLLED_BACK}, {KEPT}]
