"""From outcomes to the numbers of a row, with their standard errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.decisions.outcome import PROMOTED, ROLLED_BACK

if TYPE_CHECKING:
    from bench.decisions.cells import Cell
    from bench.decisions.outcome import Outcomes


_FIRST = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
MINUTES = (*_FIRST, 150, 200, 300, 500, 1000, 1500)


@dataclass(frozen=True, slots=True)
class Row:
    """One rule in one cell. Times in minutes or sessions since harm began, of decided experiments; NaN: none was."""

    cell: str
    title: str
    family: str
    truth: str
    claimed: bool
    rule: str
    replications: int
    promoted: float
    rolled_back: float
    undecided: float
    median: float
    p95: float
    excess_bad: float
    rolled_back_by: tuple[float, ...]
    """Share rolled back within each of :data:`MINUTES`."""

    @classmethod
    def of(cls, cell: Cell, family: str, rule: str, outcomes: Outcomes) -> Row:
        promoted, rolled_back = (float((outcomes.verdict == code).mean()) for code in (PROMOTED, ROLLED_BACK))
        decided = outcomes.minutes[(outcomes.verdict == PROMOTED) | (outcomes.verdict == ROLLED_BACK)] - cell.begins
        back = np.where(outcomes.verdict == ROLLED_BACK, outcomes.minutes - cell.begins, np.inf)
        median, p95 = (float(np.quantile(decided, q)) if decided.size else math.nan for q in (0.5, 0.95))
        return cls(
            cell.name,
            cell.title,
            family,
            cell.truth,
            cell.claimed,
            rule,
            outcomes.verdict.size,
            promoted,
            rolled_back,
            1.0 - promoted - rolled_back,
            median,
            p95,
            float(outcomes.excess_bad.mean()),
            tuple(float((back <= minutes).mean()) for minutes in MINUTES),
        )

    def known(self) -> dict[str, object]:
        """For JSON: what could be computed, with standard errors of the three shares."""
        errors = {
            f"{name}_se": standard_error(getattr(self, name), self.replications)
            for name in ("promoted", "rolled_back", "undecided")
        }
        values = {**asdict(self), "wrong": self.wrong, **errors}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}

    @property
    def wrong(self) -> float | None:
        """P(wrong decision); None where neither verdict is."""
        return {"good": self.rolled_back, "bad": self.promoted}.get(self.truth)


def standard_error(p: float, replications: int) -> float:
    """Of a share; where it is 0 or 1, that of one hit."""
    return math.sqrt(max(p * (1.0 - p), 1.0 / replications * (1.0 - 1.0 / replications)) / replications)
