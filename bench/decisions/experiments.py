"""Which rules play which cells, in pieces that processes can share; each piece has its own fixed seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from bench.decisions import session_rules
from bench.decisions.cells import SESSIONS, Cell
from bench.decisions.life import Life
from bench.decisions.operator_rules import Fiduciary, Step
from bench.decisions.outcome import Outcomes, play
from bench.decisions.rivals.argo import Argo
from bench.decisions.rivals.flagger import Flagger
from bench.decisions.rivals.growthbook import GrowthBook
from bench.decisions.rivals.kayenta import Kayenta
from bench.decisions.rivals.ztest import Peeked, Welch
from bench.decisions.sessions import SessionWorld

if TYPE_CHECKING:
    from bench.decisions.outcome import Rule

SEED = 20261126
FIRST, CHUNK = 1000, 4500
RULES = ("fiduciary", "flagger", "argo_success", "argo_failure", "kayenta", "z_peeked", "welch_fixed", "growthbook")


def rule_for(name: str, cell: Cell) -> Rule:
    """The rule with its default settings, stretched to the cell's length where a rule knows lengths."""
    budget = cell.budget
    horizon = budget if cell.long else 1440
    rules: dict[str, Rule] = {
        "fiduciary": Fiduciary(min_duration=budget if cell.long else 60, evaluations=4 * budget),
        "flagger": Flagger(),
        "argo_success": Argo(),
        "argo_failure": Argo(condition="failure", name="argo_failure"),
        "kayenta": Kayenta(),
        "z_peeked": Peeked(least=budget if cell.long else 60),
        "welch_fixed": Welch(horizon=horizon),
        "growthbook": GrowthBook(duration=horizon),
    }
    chosen = rules[name]
    if isinstance(chosen, Fiduciary) and not cell.breaker:
        chosen = replace(chosen, breaker=None)
    if isinstance(chosen, Fiduciary) and cell.sticky:
        # sticky routes draw clients, not requests: evidence from copies of the same requests only (rule 9)
        chosen = replace(chosen, steps=(Step(0.0, 1.0, 120),))
    return chosen


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` replications of one rule in one cell."""

    cell: Cell
    rule: str
    chunk: int
    size: int

    def run(self) -> Outcomes:
        rng = np.random.default_rng([SEED, crc32(self.cell.name.encode()), crc32(self.rule.encode()), self.chunk])
        if isinstance(self.cell.world, SessionWorld):
            rule = next(rule for rule in session_rules.RULES if rule.name == self.rule)
            return rule.run(self.cell.world.play(rng, self.size, SESSIONS))
        if isinstance(self.cell.world, Life):
            return self.cell.world.run(rule_for(self.rule, self.cell), rng, self.size)
        return play(rule_for(self.rule, self.cell), self.cell.world, self.cell.budget, self.size, rng)

    @property
    def cost(self) -> float:
        """Rough, to begin with the longest."""
        if isinstance(self.cell.world, SessionWorld):
            return self.size * 100.0
        weight = {"fiduciary": 10.0, "growthbook": 2.0, "welch_fixed": 2.0, "z_peeked": 1.0}.get(self.rule, 0.2)
        lives = 20.0 if self.cell.name == "chain" else 1.0
        return self.size * self.cell.budget * weight * lives * (0.3 if self.cell.truth == "bad" else 1.0)


def pieces(cell: Cell, replications: int, rules: tuple[str, ...] = RULES) -> list[Piece]:
    """All pieces of a cell: a small one first, so that every cell is known early, then large ones, which are faster.

    Sessions and lives take memory: there all are small.
    """
    left, sizes = min(replications, cell.most), []
    while left > 0:
        small = not sizes or isinstance(cell.world, (SessionWorld, Life))
        sizes.append(min(left, FIRST if small else CHUNK))
        left -= sizes[-1]
    return [Piece(cell, rule, chunk, size) for rule in rules for chunk, size in enumerate(sizes)]
