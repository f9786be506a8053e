"""Conformal CUSUM: the rank of a window's score among reference blocks and past windows, as a normal score, summed.

Source: Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World, section 7.1 (smoothed ranks are
independent uniforms for exchangeable scores); Page (1954), Biometrika 41 (CUSUM); drift-and-validation.md G5.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.evidence.cusum import LEAST_BLOCKS, REFERENCE_VALUE, correlation_estimate, threshold
from fiduciary.evidence.distributions import normal_quantile
from fiduciary.evidence.refusal import Refusal, Why, check_measure, check_next

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SCORES = 500
_MASK = 2**64 - 1


def uniform(seed: int, draw: int) -> float:
    """The ``draw``-th number in (0, 1) of the stream ``seed``: a function, so that a replay breaks ties alike.

    Source: Steele, Lea & Flood (2014), OOPSLA, figure 17 (SplitMix64's finaliser over a Weyl sequence).
    """
    z = (seed + (draw + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((z ^ (z >> 31)) >> 12) + 0.5) / 2.0**52


def normal_score(ordered: Sequence[float], score: float, position: float) -> float:
    """Φ⁻¹ of the smoothed rank (below + U (equal + 1))/(n + 1); high scores, which mean drift, give high values.

    Args:
        ordered: n earlier scores, ascending.
        score: finite.
        position: U in (0, 1), the place among ties, itself included.
    """
    below, upto = bisect_left(ordered, score), bisect_right(ordered, score)
    return normal_quantile((below + position * (upto - below + 1)) / (len(ordered) + 1))


@dataclass(frozen=True, slots=True)
class ConformalCusum:
    """State of the detector against H0: the window's score is exchangeable with the reference's and earlier ones.

    Unit: one window; expected run time between false alarms as configured, averaged over references (.92–1.08 of it
    for independent windows, .8–1.36 for ρ up to .3). ``draws`` counts the random positions used. After 500 scores the
    sample stands still, which keeps the state bounded. Invalid for windows shorter than 5 × the feature's memory.
    """

    ordered: tuple[float, ...]
    seed: int
    draws: int
    correlation: float
    height: float
    last: int
    score: float
    cusum: float

    @classmethod
    def start(cls, reference: Sequence[float], run_time: float, seed: int) -> ConformalCusum | Refusal:
        """From the scores of the reference's disjoint blocks in time order, scored leave-block-out.

        Args:
            reference: 50 to 500 scores.
            run_time: expected windows between false alarms of this monitor alone: for all m monitors together,
                m × the configured one.
            seed: of the positions among ties, 0 … 2⁶⁴ - 1.
        """
        if not LEAST_BLOCKS <= len(reference) <= MOST_SCORES:
            why = Why.TOO_FEW if len(reference) < LEAST_BLOCKS else Why.TOO_LARGE
            return Refusal(
                why, f"{len(reference)} reference blocks; a detector takes {LEAST_BLOCKS} to {MOST_SCORES}: descriptive"
            )
        if not 0 <= seed <= _MASK:
            return Refusal(Why.PARAMETER, f"seed is {seed}; expected 0 to 2^64 - 1")
        for value in reference:
            problem = check_measure("reference score", value)
            if problem is not None:
                return problem
        everything = sorted(reference)
        scores: list[float] = []
        for draw, value in enumerate(reference):
            others = everything.copy()
            others.pop(bisect_left(others, value))
            scores.append(normal_score(others, value, uniform(seed, draw)))
        correlation = correlation_estimate(scores)
        if isinstance(correlation, Refusal):
            return correlation
        height = threshold(run_time, correlation)
        if isinstance(height, Refusal):
            return height
        return cls(tuple(everything), seed, len(reference), correlation, height, -1, 0.0, 0.0)

    def fold(self, window: int, score: float) -> ConformalCusum | Refusal:
        """With the next window's score. A window without enough rows is not folded: number those that are.

        Not associative: a rank is relative to what came before.
        """
        problem = check_next(self.last, window, window) or check_measure("score", score)
        if problem is not None:
            return problem
        z = normal_score(self.ordered, score, uniform(self.seed, self.draws))
        ordered = list(self.ordered)
        if len(ordered) < MOST_SCORES:
            insort(ordered, score)
        return replace(
            self,
            ordered=tuple(ordered),
            draws=self.draws + 1,
            last=window,
            score=z,
            cusum=max(0.0, self.cusum + z - REFERENCE_VALUE),
        )

    def reset(self) -> ConformalCusum:
        """After an alarm was acted on: the sum starts again, what was learned stays."""
        return replace(self, cusum=0.0)

    @property
    def alarm(self) -> bool:
        """The sum has passed the threshold."""
        return self.cusum > self.height
