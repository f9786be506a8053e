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
ILLUSTRATION = 2000
"""Replications where no level is claimed."""
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
    """``size`` replications of some rules in one cell: of one where each moves the traffic, else of all at once."""

    cell: Cell
    rules: tuple[str, ...]
    chunk: int
    size: int

    def run(self) -> dict[str, Outcomes]:
        world = self.cell.world
        shared = isinstance(world, SessionWorld) or (isinstance(world, Life) and world.of_sessions)
        who = "" if shared else self.rules[0]
        rng = np.random.default_rng([SEED, crc32(self.cell.name.encode()), crc32(who.encode()), self.chunk])
        if isinstance(world, SessionWorld):
            drawn = world.play(rng, self.size, SESSIONS)
            return {rule.name: rule.run(drawn) for rule in session_rules.RULES if rule.name in self.rules}
        if isinstance(world, Life):
            return world.run([rule_for(name, self.cell) for name in self.rules], rng, self.size)
        return {who: play(rule_for(who, self.cell), world, self.cell.budget, self.size, rng, self.chunk)}

    @property
    def cost(self) -> float:
        """Rough, in seconds, to begin with the longest and to tell how far it is."""
        if isinstance(self.cell.world, SessionWorld):
            return self.size * 1.0e-3
        if isinstance(self.cell.world, Life):
            return self.size * {"chain": 0.05, "retries": 1e-3, "specs": 1e-2, "best_of_20": 5e-3}[self.cell.world.kind]
        minute = {"fiduciary": 2e-6, "growthbook": 5e-7, "welch_fixed": 3e-7}.get(self.rules[0], 2e-8)
        return self.size * self.cell.budget * minute * (0.3 if self.cell.truth == "bad" else 1.0)


def pieces(cell: Cell, replications: int, rules: tuple[str, ...] = RULES) -> list[Piece]:
    """All pieces of a cell: a small one first, so that every cell is known early, then large ones, which are faster.

    Sessions and lives take memory: there all are small.
    """
    sessions = isinstance(cell.world, SessionWorld) or (isinstance(cell.world, Life) and cell.world.of_sessions)
    left, sizes = min(replications, cell.most if cell.claimed else ILLUSTRATION), []
    while left > 0:
        small = not sizes or isinstance(cell.world, (SessionWorld, Life))
        sizes.append(min(left, FIRST if small else CHUNK))
        left -= sizes[-1]
    groups = [rules] if sessions else [(rule,) for rule in rules]
    return [Piece(cell, group, chunk, size) for group in groups for chunk, size in enumerate(sizes)]
