"""Lives of models: several experiments in a row, in which each rule may be fooled once.

Verdicts here are of the whole life: PROMOTED if what must not happen happened at least once, or stands at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.decisions import session_rules
from bench.decisions.operator_rules import Fiduciary
from bench.decisions.outcome import KEPT, PROMOTED, ROLLED_BACK, Outcomes, play
from bench.decisions.sessions import Drawn, student
from bench.decisions.traffic import World
from fiduciary.evidence.spending import MARGIN_SHARE, e_lond_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.decisions.outcome import Rule
    from bench.decisions.proportions import Floats

REFRESHES, WORSE_BY, BUDGET = 20, 0.0004, 2880
MARGIN = MARGIN_SHARE * 0.005
TRIES, SPECS, CONFIGURATIONS, SESSIONS = 10, 10, 20, 3350


@dataclass(frozen=True, slots=True)
class Life:
    """Which life: see the functions of this module."""

    kind: Literal["chain", "retries", "specs", "best_of_20"]
    margins: float = 1.0
    """Of a chain: how many margins beyond the anchor are too much."""

    @property
    def of_sessions(self) -> bool:
        return self.kind in ("specs", "best_of_20")

    def run(self, rules: Sequence[Rule], rng: np.random.Generator, replications: int) -> dict[str, Outcomes]:
        """By rule; those on sessions see the same ones."""
        if not self.of_sessions:
            return {rule.name: self._requests(rule, rng, replications) for rule in rules}
        judges = [one for one in session_rules.RULES if one.name in {rule.name for rule in rules}]
        return (specs if self.kind == "specs" else best_of_20)(judges, rng, replications)

    def _requests(self, rule: Rule, rng: np.random.Generator, replications: int) -> Outcomes:
        if self.kind == "chain":
            return chain(rule, rng, replications, self.margins)
        return retries(rule, rng, replications)


def chain(rule: Rule, rng: np.random.Generator, replications: int, margins: float) -> Outcomes:
    """Retrain after retrain, each worse than the champion of its time by a third of the margin.

    PROMOTED: the last champion is worse than the first, the anchor, by more than so many margins. The operator measures
    from the anchor and subtracts what earlier promotions have lost (rule 6); the others compare with the champion of
    the day or with a fixed limit.
    """
    rate = np.full(replications, 0.005)
    lost = {"errors": np.zeros(replications), "latency": np.zeros(replications)}
    minutes, bad = np.zeros(replications), np.zeros(replications)
    for _ in range(REFRESHES):
        world = World(errors=(rate, rate + WORSE_BY))
        one = rule
        if isinstance(rule, Fiduciary):
            consumed = (np.maximum(0.0, lost["errors"]), np.maximum(0.0, lost["latency"]))
            one = replace(rule, anchors=(0.005, 0.002), consumed=consumed)
        outcome = play(one, replace(world, history_minutes=1440), BUDGET, replications, rng)
        promoted = outcome.verdict == PROMOTED
        for name, estimate in outcome.estimates.items():
            lost[name] = lost[name] + np.where(promoted, estimate, 0.0)
        rate = np.where(promoted, rate + WORSE_BY, rate)
        minutes += np.where(np.isinf(outcome.minutes), BUDGET, outcome.minutes)
        bad += outcome.excess_bad
    return Outcomes(_life(rate > 0.005 + margins * MARGIN + 1e-12), minutes, bad)


def retries(rule: Rule, rng: np.random.Generator, replications: int) -> Outcomes:
    """The same bad version, proposed again each time that it was rolled back.

    The operator multiplies the evidence of earlier tries (rule 18): what was rolled back is rolled back at once.
    """
    world = World(errors=(0.005, 0.01))
    promoted, minutes, bad = np.zeros(replications, dtype=bool), np.zeros(replications), np.zeros(replications)
    remembered = np.zeros(replications, dtype=bool)
    for _ in range(TRIES):
        again = np.flatnonzero(~promoted & ~remembered)
        if not again.size:
            break
        outcome = play(rule, world, BUDGET, again.size, rng)
        minutes[again] += np.where(np.isinf(outcome.minutes), BUDGET, outcome.minutes)
        bad[again] += outcome.excess_bad
        promoted[again] = outcome.verdict == PROMOTED
        if isinstance(rule, Fiduciary):
            remembered[again] = outcome.verdict == ROLLED_BACK
    return Outcomes(_life(promoted), minutes, bad)


def specs(
    rules: Sequence[session_rules.SessionRule], rng: np.random.Generator, replications: int
) -> dict[str, Outcomes]:
    """One changed spec after another, none better; the operator tests the j-th at α_j of e-LOND (rule 18)."""
    wrong = {rule.name: np.zeros(replications, dtype=bool) for rule in rules}
    for test in range(1, SPECS + 1):
        drawn = _drawn(student()(rng, replications, SESSIONS))
        level = e_lond_level(0.05, test, 0)
        for rule in rules:
            ours = isinstance(rule, session_rules.Betting) and isinstance(level, float)
            one = replace(rule, level=level) if ours else rule
            wrong[rule.name] |= one.run(drawn).verdict == PROMOTED
    end = np.full(replications, float(SESSIONS))
    return {name: Outcomes(_life(any_), end, np.zeros(replications)) for name, any_ in wrong.items()}


def best_of_20(
    rules: Sequence[session_rules.SessionRule], rng: np.random.Generator, replications: int
) -> dict[str, Outcomes]:
    """The configuration with the best mean of 20 that somebody looked at, on the very sessions on which it was chosen.

    The operator counts them and asks for E/N >= 1/α (rule 15).
    """
    best = student()(rng, replications, SESSIONS)
    for _ in range(CONFIGURATIONS - 1):
        other = student()(rng, replications, SESSIONS)
        wins = other.mean(axis=1) > best.mean(axis=1)
        best[wins] = other[wins]
    drawn = replace(_drawn(best), tried=CONFIGURATIONS)
    return {rule.name: rule.run(drawn) for rule in rules}


def _drawn(values: Floats) -> Drawn:
    return Drawn(values, np.zeros(values.shape, dtype=bool))


def _life(wrong: np.ndarray) -> np.ndarray:
    return np.where(wrong, PROMOTED, KEPT).astype(np.int8)
