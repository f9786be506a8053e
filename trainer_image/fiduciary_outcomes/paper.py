"""Trading on paper: profit and loss of the simplest rule that a forecast supports, after costs, and its drawdown.

The trainer's rule (its measure/pnl.py): hold an equal weight of every entity whose forecast says up, cash for the rest;
a forecast over h sessions is held for h sessions in a sleeve of 1/h (Jegadeesh & Titman 1993, J. Finance 48(1)). No
leverage, no short sale. Here the capital is fixed and profits are not reinvested, so that a drawdown is an amount that
a breaker can name. An arm holds no position in an entity that it did not predict in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_outcomes.definition import LabelKind, Paper


def says_up(label: LabelKind, prediction: float) -> bool:
    """Probability above one half, or a positive return."""
    return prediction > (0.5 if label == "Direction" else 0.0)


@dataclass(frozen=True)
class Book:
    """One arm's account after its newest session.

    Attributes:
        pnl: sum of net profits, in the currency of the notional.
        peak: highest pnl so far; the start counts.
        worst: largest drawdown so far.
        turnover: traded notional so far, as a multiple of the notional.
        sessions: that were traded.
        signals: entities that each of the last h - 1 sessions said up, newest first.
        weights: of each entity in the newest session, as shares of the notional.
    """

    pnl: float = 0.0
    peak: float = 0.0
    worst: float = 0.0
    turnover: float = 0.0
    sessions: int = 0
    signals: tuple[tuple[str, ...], ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def drawdown(self) -> float:
        """Loss from the peak, now."""
        return self.peak - self.pnl

    def traded(
        self, terms: Paper, horizon: int, up: frozenset[str], returns: Mapping[str, float]
    ) -> tuple[Book, float]:
        """After a session, and its profit after costs.

        Args:
            up: entities that this arm, in time, said would rise.
            returns: simple return of each entity over the session after the decision; the equal weights are over
                these, the same for both arms. Without any the market was not observed and nothing changes.
        """
        if not returns:
            return self, 0.0
        signals = (tuple(sorted(up)), *self.signals)[:horizon]
        share = 1.0 / (len(returns) * horizon)
        weights: dict[str, float] = {}
        for sleeve in signals:
            for entity in sleeve:
                if entity in returns:
                    weights[entity] = weights.get(entity, 0.0) + share
        before = self.weights
        turnover = math.fsum(abs(weights.get(e, 0.0) - before.get(e, 0.0)) for e in weights.keys() | before.keys())
        gross = math.fsum(weight * returns[entity] for entity, weight in weights.items())
        profit = terms.notional * (gross - terms.cost * turnover)
        pnl = self.pnl + profit
        peak = max(self.peak, pnl)
        after = Book(
            pnl=pnl,
            peak=peak,
            worst=max(self.worst, peak - pnl),
            turnover=self.turnover + turnover,
            sessions=self.sessions + 1,
            signals=signals[: horizon - 1],
            weights=weights,
        )
        return after, profit

    def encode(self) -> dict[str, Any]:
        """As JSON; floats in JSON text read back as the same bits."""
        return {
            "pnl": self.pnl,
            "peak": self.peak,
            "worst": self.worst,
            "turnover": self.turnover,
            "sessions": self.sessions,
            "signals": [list(sleeve) for sleeve in self.signals],
            "weights": dict(self.weights),
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Book:
        found = dict(data)
        found["signals"] = tuple(tuple(sleeve) for sleeve in data["signals"])
        return cls(**found)
