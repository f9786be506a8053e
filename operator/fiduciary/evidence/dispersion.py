"""How much more the champion's counts scatter than independent requests would: the φ̂ of statistics.md rule 3.

Pearson's statistic over base blocks and over blocks of 1, 10 and 60 minutes, divided by the 10 % quantile of χ²: an
upper 90 % bound of the dispersion. Slow changes of the rate show only in the long blocks, hence the largest counts.

Source: McCullagh & Nelder (1989), Generalized Linear Models, section 4.5 (X²/ν); the running weighted sum of squares:
West (1979), CACM 22(9).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_next, check_trials
from fiduciary.evidence.tails import chi_square_quantile

EPISODES = (60, 600, 3600)
"""Seconds: how long a service that is episodic stays bad."""
FEW = 10
"""Blocks of a scale from which its bound says something: with ten it is about twice the scatter, with two 63 times."""


def scales(block: int) -> tuple[int, ...]:
    """Base blocks of ``block`` seconds in each block that is looked at: one, and what is an episode long at least.

    >>> scales(60), scales(10), scales(900), scales(3600)
    ((1, 10, 60), (1, 6, 60, 360), (1, 4), (1,))
    """
    return tuple(sorted({1, *(math.ceil(episode / block) for episode in EPISODES)}))


@dataclass(frozen=True, slots=True)
class Scatter:
    """Blocks of ``scale`` base blocks: how many, their trials, mean rate, and Σ n (rate - mean)²; one is open.

    The open block holds what has not filled ``scale`` base blocks yet. Blocks without trials are not counted.
    """

    scale: int
    blocks: int
    trials: int
    mean: float
    squares: float
    open_base: int
    open_trials: int
    open_bad: int

    def add(self, counts: Counts, base: int) -> Scatter:
        """With ``base`` more base blocks, whose counts come as one."""
        open_base, trials, bad = self.open_base + base, self.open_trials + counts.trials, self.open_bad + counts.bad
        if open_base < self.scale:
            return Scatter(self.scale, self.blocks, self.trials, self.mean, self.squares, open_base, trials, bad)
        if trials == 0:
            return Scatter(self.scale, self.blocks, self.trials, self.mean, self.squares, 0, 0, 0)
        total = self.trials + trials
        step = bad / trials - self.mean
        mean = self.mean + step * (trials / total)
        squares = self.squares + trials * step * step * (self.trials / total)
        return Scatter(self.scale, self.blocks + 1, total, mean, squares, 0, 0, 0)

    def upper_bound(self) -> float | Refusal:
        """max(1, X²/χ²₀.₁₀) with X² = Σ n (rate - mean)²/(mean (1 - mean)) on blocks - 1 degrees of freedom."""
        if self.blocks < 2:
            return Refusal(Why.TOO_FEW, f"{self.blocks} blocks of {self.scale}; a scatter needs two")
        variance = self.mean * (1.0 - self.mean)
        if variance <= 0.0:
            return Refusal(Why.NO_VARIANCE, "no block has a bad request (or all are bad): dispersion is not visible")
        degrees = self.blocks - 1
        return max(1.0, self.squares / variance / chi_square_quantile(0.1, degrees))


@dataclass(frozen=True, slots=True)
class Dispersion:
    """The same counts at each scale, the shortest first. Unit: base blocks of one arm."""

    last: int
    scatters: tuple[Scatter, ...]

    @classmethod
    def start(cls, last: int = -1, block: int = 60) -> Dispersion:
        """Nothing folded; ``last`` is the number of the block before the first one, ``block`` the seconds of each."""
        return cls(last, tuple(Scatter(scale, 0, 0, 0.0, 0.0, 0, 0, 0) for scale in scales(block)))

    def fold(self, first: int, last: int, counts: Counts) -> Dispersion | Refusal:
        """With base blocks ``first`` … ``last`` of one arm; a merged gap counts as one block of at least its length."""
        problem = check_trials("arm", counts.trials, counts.bad) or check_next(self.last, first, last)
        if problem is None and counts.trials + max(s.trials + s.open_trials for s in self.scatters) > MAX_COUNT:
            problem = Refusal(Why.TOO_LARGE, "more than 2^53 requests in one estimate; start a new one")
        if problem is not None:
            return problem
        return Dispersion(last, tuple(scatter.add(counts, last - first + 1) for scatter in self.scatters))

    def estimate(self, least_blocks: int) -> float | Refusal:
        """φ̂ >= 1: the largest bound over the scales that have two blocks.

        H0-free; a mean rate that truly changes counts as dispersion. Invalid for an arm whose bursts are longer than
        an hour or a base block, or begin only after the estimate: then the declared value must be larger.

        Args:
            least_blocks: base blocks below which there is no estimate (24 h of minutes: 1,440); the caller then uses
                the declared dispersion.
        """
        seen = self.scatters[0].blocks
        if seen < least_blocks:
            return Refusal(Why.TOO_FEW, f"{seen} blocks with requests; an estimate needs {least_blocks}")
        bounds = [scatter.upper_bound() for scatter in self.scatters]
        known = [bound for bound in bounds if isinstance(bound, float)]
        if known and all(math.isfinite(bound) for bound in known):
            return max(known)
        return next(bound for bound in bounds if isinstance(bound, Refusal))

    def provisional(self) -> float:
        """The largest bound over the scales that have :data:`FEW` blocks, however short the time; 1 where none has.

        For tests that may only become more cautious by it: it cannot see bursts that are longer, or rarer, than what
        was looked at. H0-free, invalid alone.
        """
        bounds = [scatter.upper_bound() for scatter in self.scatters if scatter.blocks >= FEW]
        return max((bound for bound in bounds if isinstance(bound, float) and math.isfinite(bound)), default=1.0)


def effective(counts: Counts, dispersion: float) -> Counts:
    """What bursts leave of a sample: as many independent requests as say what these say; at least one."""
    trials = max(1, round(counts.trials / dispersion))
    return Counts(trials, min(trials, math.ceil(counts.bad / dispersion)))
