"""Conformal CUSUM: the rank of a window's score among reference blocks and past windows, as a normal score, summed.

Source: Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World, section 7.1 (smoothed ranks are
independent uniforms for exchangeable scores); Page (1954), Biometrika 41 (CUSUM); drift-and-validation.md G5.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.evidence.cusum import LEAST_BLOCKS, REFERENCE_VALUE, correlation_estimate, threshold
from fiduciary.evidence.distributions import normal_quantile
from fiduciary.evidence.packed import EMPTY, Packed, unpacked, with_one
from fiduciary.evidence.refusal import Refusal, Why, check_measure, check_next

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BLOCKS = 500
MOST_LATER = 100
"""Scores of past windows that are kept: with them the rank's sample has 150 to 600 scores, and then stands still."""
_MASK = 2**64 - 1


def uniform(seed: int, draw: int) -> float:
    """The ``draw``-th number in (0, 1) of the stream ``seed``: a function, so that a replay breaks ties alike.

    Source: Steele, Lea & Flood (2014), OOPSLA, figure 17 (SplitMix64's finaliser over a Weyl sequence).
    """
    z = (seed + (draw + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((z ^ (z >> 31)) >> 12) + 0.5) / 2.0**52


def normal_score(ordered: Sequence[float], score: float, position: float, later: Sequence[float] = ()) -> float:
    """Φ⁻¹ of the smoothed rank (below + U (equal + 1))/(n + 1); high scores, which mean drift, give high values.

    Args:
        ordered, later: n earlier scores in two parts, each ascending.
        score: finite.
        position: U in (0, 1), the place among ties, itself included.
    """
    below = bisect_left(ordered, score) + bisect_left(later, score)
    upto = bisect_right(ordered, score) + bisect_right(later, score)
    return normal_quantile((below + position * (upto - below + 1)) / (len(ordered) + len(later) + 1))


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a detector rests on: the same for each window, and computed anew from the reference where it is needed.

    Attributes:
        ordered: scores of the reference's disjoint blocks, leave-block-out, ascending.
        seed: of the positions among ties.
        correlation: ρ̂ of the blocks' normal scores in time order.
        height: threshold h of the sum.
    """

    ordered: Sequence[float]
    seed: int
    correlation: float
    height: float

    @classmethod
    def of(cls, reference: Sequence[float], run_time: float, seed: int) -> Calibration | Refusal:
        """From the scores of the reference's blocks in time order.

        Args:
            reference: 50 to 500 scores.
            run_time: expected windows between false alarms of this monitor alone: for all m monitors together,
                m × the configured one.
            seed: 0 … 2⁶⁴ - 1.
        """
        if not LEAST_BLOCKS <= len(reference) <= MOST_BLOCKS:
            why = Why.TOO_FEW if len(reference) < LEAST_BLOCKS else Why.TOO_LARGE
            return Refusal(
                why, f"{len(reference)} reference blocks; a detector takes {LEAST_BLOCKS} to {MOST_BLOCKS}: descriptive"
            )
        if not 0 <= seed <= _MASK:
            return Refusal(Why.PARAMETER, f"seed is {seed}; expected 0 to 2^64 - 1")
        for value in reference:
            problem = check_measure("reference score", value)
            if problem is not None:
                return problem
        ordered = sorted(reference)
        scores: list[float] = []
        for value in reference:
            others = ordered.copy()
            others.pop(bisect_left(others, value))
            # In the middle of its ranks: drawn places move ρ̂ by ±.006, and whether it may be judged at all (≤ .3) hung
            # on the policy's UID.
            scores.append(normal_score(others, value, 0.5))
        correlation = correlation_estimate(scores)
        if isinstance(correlation, Refusal):
            return correlation
        height = threshold(run_time, correlation)
        if isinstance(height, Refusal):
            return height
        return cls(array("d", ordered), seed, correlation, height)


@dataclass(frozen=True, slots=True)
class ConformalCusum:
    """State of the detector against H0: the window's score is exchangeable with the reference's and earlier ones.

    Unit: one window; expected run time between false alarms as configured, averaged over references (.92–1.08 of it
    for independent windows, .8–1.36 for ρ up to .3). Invalid for windows shorter than 5 × the feature's memory.

    Attributes:
        later: scores of past windows, ascending; the first 100, which keeps the state bounded.
        draws: random positions used after those of the reference's blocks.
        last: number of the last window, -1 before the first.
        score: its normal score z.
        cusum: S = max(0, S + z - .5).
    """

    later: Packed = EMPTY
    draws: int = 0
    last: int = -1
    score: float = 0.0
    cusum: float = 0.0

    def fold(self, calibration: Calibration, window: int, score: float) -> ConformalCusum | Refusal:
        """With the next window's score. A window without enough rows is not folded: number those that are.

        Not associative: a rank is relative to what came before.
        """
        problem = check_next(self.last, window, window) or check_measure("score", score)
        if problem is not None:
            return problem
        position = uniform(calibration.seed, len(calibration.ordered) + self.draws)
        scores = unpacked(self.later)
        z = normal_score(calibration.ordered, score, position, scores)
        later = self.later
        if len(scores) < MOST_LATER:
            later = with_one(later, bisect_right(scores, score), score)
        cusum = max(0.0, self.cusum + z - REFERENCE_VALUE)
        return ConformalCusum(later, self.draws + 1, window, z, cusum)

    def reset(self) -> ConformalCusum:
        """After an alarm was acted on: the sum starts again, what was learned stays."""
        return replace(self, cusum=0.0)
