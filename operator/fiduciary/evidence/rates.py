"""Predictable plug-in rates: what was believed about both arms before the block that is about to be folded.

The challenger's belief starts at the champion's, with the weight of about 50 requests: a heavier prior from history
costs minutes at each detection (statistics.md rule 3: 9, 26 and 37 minutes instead of 2, 7 and 19).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Block, Counts

CHALLENGER_PRIOR = 50.0
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Discounted trials and bad ones per arm; the unit is requests, fractional once they fade."""

    champion_trials: float
    champion_bad: float
    challenger_trials: float
    challenger_bad: float

    @classmethod
    def of_history(cls, champion: Counts) -> Beliefs:
        """Before the first block: the champion's history, nothing of the challenger."""
        return cls(float(champion.trials), float(champion.bad), 0.0, 0.0)

    def champion(self) -> float:
        """Expected rate of the champion: (bad + ½)/(trials + 1), the mean under Jeffreys' prior; inside (0, 1)."""
        return _inside((self.champion_bad + 0.5) / (self.champion_trials + 1.0))

    def challenger(self) -> float:
        """Expected rate of the challenger: its own counts and 50 requests at the champion's rate; inside (0, 1)."""
        return self.challenger_near(self.champion())

    def challenger_near(self, rate: float) -> float:
        """The same with another rate of the champion, from a longer memory, in (0, 1)."""
        bad = self.challenger_bad + CHALLENGER_PRIOR * rate
        return _inside(bad / (self.challenger_trials + CHALLENGER_PRIOR))

    def after(self, block: Block, half_life: float | None) -> Beliefs:
        """With the block added; what was known before fades by half in ``half_life`` base blocks (None: never).

        Fading composes: after(block 1) then after(block 2) is one geometric weight per base block. It is not
        associative over merged blocks (a merged block counts whole), which moves a bet, never its validity.
        """
        keep = 1.0 if half_life is None else 0.5 ** ((block.last - block.first + 1) / half_life)
        return Beliefs(
            keep * self.champion_trials + block.champion.trials,
            keep * self.champion_bad + block.champion.bad,
            keep * self.challenger_trials + block.challenger.trials,
            keep * self.challenger_bad + block.challenger.bad,
        )


def _inside(rate: float) -> float:
    return min(max(rate, _LEAST), 1.0 - _LEAST)
