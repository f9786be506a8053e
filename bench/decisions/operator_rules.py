"""The operator's verdict for many experiments at once.

The rules are the operator's own table (``fiduciary.decide.experiment.rules.TABLE``), read with arrays in its readings.
What is repeated here as arrays is arithmetic: folding a block, and the counter of steps.
tests/decisions/test_operator_rules.py proves both equal to ``fiduciary.decide`` on sampled paths of every kind of cell.

Time: the evaluation after block k comes when two scrape intervals and a timeout have passed (rule 2), 40 s into the
next minute; the weight that it asks for is in force from the next edge on, and the minute of the change counts for
harm only. Circuit breakers are asked at each scrape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from bench.decisions.outcome import KEPT, PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.proportions import Block, Counts, Harm, NonInferiority, log_sum_exp
from bench.decisions.scatter import Dispersion, SampleRatio, breaker_trips
from bench.decisions.traffic import CHALLENGER, CHAMPION, GUARDRAILS, SCRAPES, Tape, World
from fiduciary.decide.experiment.read import DARK_AFTER
from fiduciary.decide.experiment.readings import Readings
from fiduciary.decide.experiment.rules import TABLE
from fiduciary.evidence.spending import MARGIN_FLOOR, MARGIN_SHARE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.decisions.outcome import Verdicts
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen

SETTLE_SECONDS = 40
CODES = {"RollBack": ROLLED_BACK, "Promote": PROMOTED, "KeepChampion": KEPT}
ZERO = -1
KEPT_PASTS = 6
"""Of champions, in each process."""


@dataclass(frozen=True, slots=True)
class Step:
    """Shares as the spec's percent over 100."""

    weight: float
    mirror: float
    min_blocks: int


DEFAULT_STEPS = (Step(0.0, 1.0, 30), Step(0.05, 0.0, 30), Step(0.5, 0.0, 60))
"""Those of the API's default, without the mirror beside a split, which nobody could count apart (protocols §4)."""


@dataclass(slots=True)
class Guardrail:
    """Evidence of one guardrail: array form of ``GuardrailEvidence``."""

    harm: Harm
    noninferiority: NonInferiority
    champion: Dispersion
    challenger: Dispersion
    history: Counts

    def difference(self) -> Floats:
        """Challenger's rate less champion's, of what counted for non-inferiority (rule 6)."""
        seen = self.noninferiority.beliefs
        trials, bad = seen.champion_trials - self.history.trials, seen.champion_bad - self.history.bad
        champion = bad / np.where(trials > 0.0, trials, 1.0)
        return seen.challenger_bad / np.where(seen.challenger_trials > 0.0, seen.challenger_trials, 1.0) - champion

    def fold(self, block: Block, live: Block | None, promotes: NDArray[np.bool_], terms: Fiduciary) -> None:
        """``live``: what counts for non-inferiority, where ``promotes``; None: a merged gap."""
        phi_harm = self._phi(self.champion, terms)
        if live is not None and promotes.any():
            phi_both = np.maximum(phi_harm, self._phi(self.challenger, terms))
            folded = self.noninferiority.fold(live, phi_both)
            before = self.noninferiority
            if promotes.all():
                self.noninferiority = folded
            else:
                old, new = before.beliefs, folded.beliefs
                for name in ("champion_trials", "champion_bad", "challenger_trials", "challenger_bad"):
                    setattr(new, name, np.where(promotes, getattr(new, name), getattr(old, name)))
                log_e = np.where(promotes, folded.log_e, before.log_e)
                self.noninferiority = NonInferiority(before.margin, new, log_e)
        self.harm = self.harm.fold(block, phi_harm)
        self.champion = self.champion.fold(block.first, block.last, block.champion)
        self.challenger = self.challenger.fold(block.first, block.last, block.challenger)

    @staticmethod
    def _phi(counts: Dispersion, terms: Fiduciary) -> Floats:
        estimate = counts.estimate(terms.least_blocks)
        return np.where(np.isnan(estimate), terms.dispersion, estimate)


Past = tuple[dict[str, Counts], dict[str, Dispersion]]
_pasts: dict[tuple[World, int, int], tuple[Past, Floats]] = {}


def champions_past(tape: Tape) -> Past:
    """Counts and dispersion of the champion before the experiment, and the tape where that past ends.

    A week takes longer than most experiments. Cells with the same champion share it, chunk by chunk: its replications
    are independent of each other and of what the challenger does.
    """
    if tape.chunk is None:
        return _folded(tape)
    world = tape.world
    # the champion alone: nothing of the challenger, the router or Prometheus
    alone = World(
        per_minute=world.per_minute,
        errors=(world.errors[CHAMPION], world.errors[CHAMPION]),
        slow=(world.slow[CHAMPION], world.slow[CHAMPION]),
        drift=world.drift,
        volume=world.volume,
        bursts=replace(world.bursts, arms=(CHAMPION,)) if world.bursts and CHAMPION in world.bursts.arms else None,
        history_minutes=world.history_minutes,
    )
    key = (alone, tape.replications, tape.chunk)
    if key not in _pasts:
        if len(_pasts) >= KEPT_PASTS:
            _pasts.pop(next(iter(_pasts)))
        name = repr((alone.per_minute, alone.errors, alone.bursts, alone.history_minutes))
        rng = np.random.default_rng([tape.chunk, tape.replications, crc32(name.encode())])
        own = Tape(alone, rng, tape.replications)
        _pasts[key] = (_folded(own), own.log_burst[CHAMPION])
    _pasts[key] = _pasts.pop(key)  # the last to be forgotten
    past, burst = _pasts[key]
    tape.log_burst[CHAMPION] = burst
    return past


def _folded(tape: Tape) -> Past:
    zeros = np.zeros(tape.replications)
    counts = {name: Counts(zeros, zeros) for name in GUARDRAILS}
    dispersions = {name: Dispersion.start(tape.replications) for name in GUARDRAILS}
    for at, minute in enumerate(tape.history(), start=-tape.world.history_minutes):
        for name in GUARDRAILS:
            counts[name] = counts[name] + minute[name]
            dispersions[name] = dispersions[name].fold(at, at, minute[name])
    return counts, dispersions


@dataclass(slots=True)
class State:
    """``step`` as asked for; ``serving``: the step whose weights are in force in this minute (ZERO: no weight).

    ``settling``: the last minute, what was in force in it, and where that changed within it, not yet judged; ``gap``:
    dark minutes, not yet folded.
    """

    guardrails: dict[str, Guardrail]
    ratio: SampleRatio
    ratio_alarm: NDArray[np.bool_]
    shortfall: NDArray[np.bool_]
    step: NDArray[np.int64]
    blocks: NDArray[np.int64]
    serving: NDArray[np.int64]
    settling: tuple[Seen, NDArray[np.int64], NDArray[np.bool_]] | None
    dark_since: Floats
    missed: list[NDArray[np.int64]]
    gap: list[Seen]
    first: int


@dataclass(frozen=True, slots=True)
class Fiduciary:
    """A ModelExperiment of purpose Refresh: what its spec says, minutes and shares; ``breaker``: (above, normal)."""

    alpha_promote: float = 0.05
    alpha_rollback: float = 0.05
    alpha_ratio: float = 0.001
    dispersion: float = 2.0
    margin: float = 0.005
    steps: tuple[Step, ...] = DEFAULT_STEPS
    min_duration: int = 60
    max_hold: int = 120
    least_blocks: int = 1440
    breaker: tuple[float, float] | None = (0.25, 0.01)
    consumed: tuple[Floats | float, Floats | float] = (0.0, 0.0)
    anchors: tuple[Floats | float, Floats | float] | None = None
    evaluations: int = 4 * 2880
    name: str = "fiduciary"

    def start(self, world: World, tape: Tape, budget: int) -> State:
        replications = tape.replications
        zeros = np.zeros(replications)
        counts, dispersions = champions_past(tape)
        anchors = self.anchors or (world.errors[CHAMPION], world.slow[CHAMPION])
        guardrails = {}
        for name, anchor, consumed in zip(GUARDRAILS, anchors, self.consumed, strict=True):
            margin = np.minimum(self.margin, np.maximum(MARGIN_SHARE * np.asarray(anchor), MARGIN_FLOOR))
            guardrails[name] = Guardrail(
                Harm.start(counts[name], budget),
                NonInferiority.start(counts[name], np.broadcast_to(margin - consumed, replications).copy()),
                dispersions[name],
                Dispersion.start(replications),
                counts[name],
            )
        first = np.zeros(replications, dtype=np.int64)
        return State(
            guardrails,
            SampleRatio.start(replications),
            zeros.astype(bool),
            zeros.astype(bool),
            first,
            first.copy(),
            first,
            None,
            np.full(replications, np.nan),
            [first, first],
            [],
            0,
        )

    def route(self, state: State, minute: int) -> Route:
        weights = np.array([*(step.weight for step in self.steps), 0.0])
        mirrors = np.array([*(step.mirror for step in self.steps), 0.0])
        return Route(weights[state.serving], mirrors[state.serving])

    def judge(self, state: State, minute: int, seen: Seen) -> Judged:
        """This minute's scrapes for breakers, and 40 s after its first edge everything, on the minute before."""
        trips = self._breaker(seen)
        verdict, at = np.where(trips <= 1.0, ROLLED_BACK, 0).astype(np.int8), trips
        served = state.serving
        if state.settling is not None:
            before, serving, mixed = state.settling
            for arm in (CHAMPION, CHALLENGER):
                # an arm to which nothing is sent has no series that could be stale
                blind = before.dark[arm] & ((arm == CHAMPION) | (serving != ZERO))
                state.missed[arm] = np.where(blind, state.missed[arm] + 1, 0)
            if any(before.dark):
                state.gap.append(before)
            else:
                self._fold(state, minute - 1, before, serving, mixed)
            settled, exposure = self._rule(state, minute)
            first = (settled != 0) & (trips > SETTLE_SECONDS / 60.0)
            verdict, at = np.where(first, settled, verdict), np.where(first, SETTLE_SECONDS / 60.0, at)
            enters = exposure == "Next"
            state.step = state.step + enters
            state.blocks = np.where(enters, 0, state.blocks)
            state.serving = np.where(exposure == "Zero", ZERO, state.step)
        state.settling = (replace(seen, suspects=None, scrapes=[]), served, state.serving != served)
        promotes = (verdict == PROMOTED).any()
        return Judged(verdict, at, {n: g.difference() for n, g in state.guardrails.items()} if promotes else None)

    def _fold(
        self, state: State, minute: int, seen: Seen, serving: NDArray[np.int64], mixed: NDArray[np.bool_]
    ) -> None:
        weights = np.array([*(step.weight for step in self.steps), 0.0])[serving]
        merged = bool(state.gap)
        for name, guardrail in state.guardrails.items():
            both = [part.arms[arm][name] for arm in (CHAMPION, CHALLENGER) for part in (*state.gap, seen)]
            half = len(both) // 2
            champion, challenger = _sum(both[:half]), _sum(both[half:])
            block = Block(state.first, minute, champion, challenger)
            promotes = (weights == self.steps[-1].weight) & ~mixed
            guardrail.fold(block, None if merged else block, promotes, self)
        if not merged:
            state.ratio = state.ratio.fold(np.where(mixed, 0.0, weights), *seen.live)
            alarm = state.ratio.log_e() >= -math.log(self.alpha_ratio)
            rises = alarm & ~state.ratio_alarm
            state.shortfall = np.where(rises, state.ratio.shortfall(), state.shortfall)
            state.ratio_alarm = state.ratio_alarm | alarm
            state.blocks = state.blocks + ((serving == state.step) & ~mixed)
        state.gap, state.first = [], minute + 1

    def _breaker(self, seen: Seen) -> Floats:
        """Part of the minute that had passed at the first scrape at which the breaker trips; 2 where it does not."""
        at = np.full(seen.excess.size, 2.0)
        if self.breaker is None or any(seen.dark):
            return at
        above, normal = self.breaker
        for scrape, (champion, challenger) in enumerate(seen.scrapes, start=1):
            trips = breaker_trips(challenger, champion, above, normal, self.evaluations)
            rows = seen.suspects[trips] if seen.suspects is not None else []
            at[rows] = np.minimum(at[rows], scrape / SCRAPES)
        return at

    def _rule(self, state: State, minute: int) -> tuple[Verdicts, NDArray[np.str_]]:
        now = 60.0 * minute + SETTLE_SECONDS
        champion_dark, challenger_dark = (missed >= DARK_AFTER for missed in state.missed)
        harms = [guardrail.harm.log_e() for guardrail in state.guardrails.values()]
        share = -math.log(len(harms))
        promotions = [guardrail.noninferiority.log_e for guardrail in state.guardrails.values()]
        steps = np.arange(len(self.steps))
        readings = Readings(
            harm_over=log_sum_exp([log + share for log in harms]) + math.log(self.alpha_rollback),
            ratio_alarm=state.ratio_alarm,
            shortfall=state.shortfall,
            exposed=state.serving != ZERO,
            confirmed=state.serving == state.step,
            champion_dark=champion_dark,
            challenger_dark=challenger_dark,
            dark_seconds=np.where(np.isnan(state.dark_since), 0.0, now - state.dark_since),
            max_hold=60.0 * self.max_hold,
            step=state.step,
            last_step=int(steps[-1]),
            blocks=state.blocks,
            min_blocks=np.array([step.min_blocks for step in self.steps])[state.step],
            objectives_over=math.inf,
            noninferiority_over=np.minimum.reduce(promotions) + math.log(self.alpha_promote),
            elapsed=now,
            min_duration=60.0 * self.min_duration,
            max_duration=60.0 * state.guardrails["errors"].harm.planned,
        )
        rule = np.full(state.step.size, -1)
        for index, one in enumerate(TABLE):
            applies = one.applies(readings)
            if np.any(applies):
                rule[(rule < 0) & applies] = index
                if (rule >= 0).all():
                    break
        codes = np.array([CODES[one.verdict] if one.final and one.verdict else 0 for one in TABLE], dtype=np.int8)
        dark = champion_dark | (challenger_dark & (state.serving != ZERO))
        state.dark_since = np.where(dark, np.where(np.isnan(state.dark_since), now, state.dark_since), np.nan)
        return codes[rule], np.array([one.exposure for one in TABLE])[rule]


def _sum(parts: list[Counts]) -> Counts:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
