"""What a model's life may still claim: error probability for superiority tests, margin for non-inferiority.

Superiority (statistics.md rule 18): e-LOND, Xu & Ramdas (2024), AISTATS, algorithm 1, with γ_j = 6/(π² j²).
Margins (rule 6) are measured from the anchor, the last version promoted on superiority, so that a chain of small
losses is visible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_measure, check_open_unit

MARGIN_SHARE = 0.25
MARGIN_FLOOR = 0.001


def e_lond_level(alpha: float, test: int, discoveries: int) -> float | Refusal:
    """α_j = α γ_j (R + 1): the false discovery rate over all tests stays at most α under any dependence.

    Args:
        alpha: of the whole sequence, in (0, 1).
        test: j from 1, the number of this superiority test in the model's life.
        discoveries: R, earlier rejections, 0 … j - 1.
    """
    if not (1 <= test <= MAX_COUNT and 0 <= discoveries < test):
        return Refusal(Why.PARAMETER, f"test {test} after {discoveries} discoveries; expected j >= 1 and 0 <= R < j")
    return check_open_unit("alpha", alpha) or alpha * 6.0 / (math.pi * test) ** 2 * (discoveries + 1)


def log_threshold(level: float, configurations: int = 1) -> float | Refusal:
    """ln(N/α_j): what the log e-value must reach if the best of N tried configurations was taken (Bonferroni on e).

    Args:
        level: α_j in (0, 1).
        configurations: N >= 1, distinct configurations whose outer results were seen (rule 15).
    """
    if not 1 <= configurations <= MAX_COUNT:
        return Refusal(Why.PARAMETER, f"{configurations} configurations; expected 1 to 2^53")
    return check_open_unit("level", level) or math.log(configurations) - math.log(level)


@dataclass(frozen=True, slots=True)
class Margins:
    """Per guardrail: the anchor's rate and the estimated differences of the promotions since."""

    anchor_rate: float
    differences: float

    @classmethod
    def of_anchor(cls, rate: float) -> Margins | Refusal:
        """A new anchor with an error rate in [0, 1]: nothing is consumed."""
        if not 0.0 <= rate <= 1.0:
            return Refusal(Why.PARAMETER, f"the anchor's rate is {rate}; expected 0 to 1")
        return cls(rate, 0.0)

    def promoted(self, difference: float) -> Margins | Refusal:
        """After a promotion on non-inferiority; ``difference`` is challenger minus champion, negative if better.

        Associative: only the sum is kept, a better version gives back what a worse one took.
        """
        problem = check_measure("difference", difference)
        return problem or replace(self, differences=self.differences + difference)

    @property
    def consumed(self) -> float:
        """max(0, sum of the estimated differences since the anchor)."""
        return max(0.0, self.differences)

    def left(self, absolute: float) -> float | Refusal:
        """min(absolute, max(25 % of the anchor's rate, .001)) - consumed.

        Not positive where earlier promotions have used it up: the next version then has to be better than the champion
        by what is missing, which gives the anchor's level back instead of ending all promotions.

        Args:
            absolute: the margin that the spec declares, in [0, 1].
        """
        if not 0.0 <= absolute <= 1.0:
            return Refusal(Why.PARAMETER, f"margin is {absolute}; expected 0 to 1, a difference of rates")
        return min(absolute, max(MARGIN_SHARE * self.anchor_rate, MARGIN_FLOOR)) - self.consumed
