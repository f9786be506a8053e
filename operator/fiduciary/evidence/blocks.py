"""What one closed block of requests says: trials and bad ones per arm, and which wall-clock blocks it covers."""

from __future__ import annotations

from dataclasses import dataclass

from fiduciary.evidence.refusal import Refusal, check_next, check_trials


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests started and those of them that were bad: raw counter differences, never rates."""

    trials: int
    bad: int


@dataclass(frozen=True, slots=True)
class Block:
    """Both arms between two wall-clock edges.

    ``first`` and ``last`` number the base blocks it covers; they differ only where a gap was merged. A block without
    trials is data: it moves no evidence but is counted.
    """

    first: int
    last: int
    champion: Counts
    challenger: Counts

    def check(self, last: int) -> Refusal | None:
        """None if its counts are possible and it follows block ``last`` (-1: nothing yet)."""
        return (
            check_trials("champion", self.champion.trials, self.champion.bad)
            or check_trials("challenger", self.challenger.trials, self.challenger.bad)
            or check_next(last, self.first, self.last)
        )
