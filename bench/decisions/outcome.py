"""What became of experiments, and the loop that plays a rule against a world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.decisions.arrays import select
from bench.decisions.traffic import Tape

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, World

UNDECIDED, PROMOTED, ROLLED_BACK, KEPT = 0, 1, 2, 3
Verdicts = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Route:
    """What a rule asks for in the coming minute; numbers or one a replication. See :meth:`Tape.minute`."""

    weight: Floats | float
    mirror: Floats | float = 0.0
    control: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdicts of a minute, and which part of it had passed when they came."""

    verdict: Verdicts
    at: Floats | float = 1.0
    estimates: dict[str, Floats] | None = None
    """Of those decided: the estimated difference of each guardrail's rates, for who keeps account of them."""


class Rule(Protocol):
    """One way to decide about a challenger from requests. ``state`` is any dataclass of arrays."""

    @property
    def name(self) -> str: ...

    def start(self, world: World, tape: Tape, budget: int) -> Any: ...

    def route(self, state: Any, minute: int) -> Route: ...

    def judge(self, state: Any, minute: int, seen: Seen) -> Judged:
        """Update ``state`` in place with what was seen in ``minute``; verdicts are codes of this module."""
        ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One element a replication: verdict, minutes until it (inf: none), bad answers in excess that clients got."""

    verdict: Verdicts
    minutes: Floats
    excess_bad: Floats
    estimates: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: list[Outcomes]) -> Outcomes:
        return cls(
            np.concatenate([part.verdict for part in parts]),
            np.concatenate([part.minutes for part in parts]),
            np.concatenate([part.excess_bad for part in parts]),
        )


def play(
    rule: Rule, world: World, budget: int, replications: int, rng: np.random.Generator, chunk: int | None = None
) -> Outcomes:
    """All replications in lockstep for at most ``budget`` minutes.

    Decided ones leave the arrays when they are a tenth of them: until then they go on, and nobody looks.
    """
    tape = Tape(world, rng, replications, chunk=chunk)
    state = rule.start(world, tape, budget)
    alive, open_ = np.arange(replications), np.ones(replications, dtype=bool)
    outcome = Outcomes(
        np.zeros(replications, dtype=np.int8), np.full(replications, np.inf), np.zeros(replications, dtype=float)
    )
    for minute in range(budget):
        route = rule.route(state, minute)
        seen = tape.minute(route.weight, route.mirror, route.control)
        judged = rule.judge(state, minute, seen)
        decided = open_ & (judged.verdict != UNDECIDED)
        passed = np.where(decided, judged.at, 1.0)
        outcome.excess_bad[alive] += np.where(open_, passed * seen.excess, 0.0)
        if not decided.any():
            continue
        outcome.verdict[alive[decided]] = judged.verdict[decided]
        outcome.minutes[alive[decided]] = minute + passed[decided]
        for name, values in (judged.estimates or {}).items():
            outcome.estimates.setdefault(name, np.zeros(replications))[alive[decided]] = values[decided]
        open_ &= ~decided
        if not open_.any():
            break
        if open_.mean() < 0.9:
            alive, state = alive[open_], select(state, open_)
            tape.keep(open_)
            open_ = open_[open_]
    return outcome
