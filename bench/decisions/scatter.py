"""Array forms of ``fiduciary.evidence``: dispersion, samples (SRM), breaker. One element a replication."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom, chi2

from fiduciary.evidence.breaker import LEVEL
from fiduciary.evidence.dispersion import scales
from fiduciary.evidence.samples import CONCENTRATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.decisions.proportions import Counts, Floats


@lru_cache(maxsize=8)
def _chi_square(most: int) -> Floats:
    """10 % quantiles of χ² with 0 … most degrees of freedom; the operator's own function is slower, not different."""
    return chi2.ppf(0.1, np.arange(most + 1))


@dataclass(slots=True)
class Scatter:
    """Array form of ``fiduciary.evidence.dispersion.Scatter``; the open block is as long in all replications."""

    scale: int
    blocks: Floats
    trials: Floats
    mean: Floats
    squares: Floats
    open_base: int
    open_trials: Floats
    open_bad: Floats
    bound: Floats
    """:meth:`upper_bound` of the closed blocks; a long block closes rarely."""

    @classmethod
    def start(cls, scale: int, replications: int) -> Scatter:
        zeros = [np.zeros(replications) for _ in range(6)]
        return cls(scale, *zeros[:4], 0, *zeros[4:], np.full(replications, np.nan))

    def add(self, counts: Counts, base: int) -> Scatter:
        open_base, trials, bad = self.open_base + base, self.open_trials + counts.trials, self.open_bad + counts.bad
        if open_base < self.scale:
            return replace(self, open_base=open_base, open_trials=trials, open_bad=bad)
        seen = trials > 0.0
        total = self.trials + trials
        step = bad / np.where(seen, trials, 1.0) - self.mean
        mean = np.where(seen, self.mean + step * (trials / np.where(seen, total, 1.0)), self.mean)
        more = trials * step * step * (self.trials / np.where(seen, total, 1.0))
        squares = np.where(seen, self.squares + more, self.squares)
        empty = np.zeros_like(trials)
        closed = Scatter(self.scale, self.blocks + seen, total, mean, squares, 0, empty, empty, self.bound)
        if self.scale > 1:
            closed.bound = closed.upper_bound()
        return closed

    def upper_bound(self) -> Floats:
        """NaN where the operator's refuses: fewer than two blocks, or no variance."""
        variance = self.mean * (1.0 - self.mean)
        usable = (self.blocks >= 2.0) & (variance > 0.0)
        degrees = np.maximum(self.blocks, 2.0).astype(int) - 1
        quantiles = _chi_square(1 << int(degrees.max(initial=1)).bit_length())[degrees]
        bound = np.maximum(1.0, self.squares / np.where(usable, variance, 1.0) / quantiles)
        return np.where(usable, bound, np.nan)


@dataclass(slots=True)
class Dispersion:
    """Array form of ``fiduciary.evidence.dispersion.Dispersion``."""

    scatters: list[Scatter]

    @classmethod
    def start(cls, replications: int) -> Dispersion:
        return cls([Scatter.start(scale, replications) for scale in scales(60)])

    def fold(self, first: int, last: int, counts: Counts) -> Dispersion:
        return Dispersion([scatter.add(counts, last - first + 1) for scatter in self.scatters])

    def estimate(self, least_blocks: int) -> Floats:
        """The largest bound; NaN where the operator's refuses, and its caller uses the declared dispersion."""
        enough = self.scatters[0].blocks >= least_blocks
        if not enough.any():
            return np.full(enough.size, np.nan)
        bounds = [self.scatters[0].upper_bound(), *(scatter.bound for scatter in self.scatters[1:])]
        known = np.fmax(np.fmax(bounds[0], bounds[1]), bounds[2])
        return np.where(enough, known, np.nan)


def log_bayes_factor(share: Floats, champion: Floats, challenger: Floats) -> Floats:
    """Array form of ``fiduciary.evidence.samples.Segment.log_bayes_factor`` for two arms, by log-gamma functions."""
    total: Floats = gammaln(CONCENTRATION) - gammaln(CONCENTRATION + champion + challenger)
    for part, count in ((1.0 - share, champion), (share, challenger)):
        prior = CONCENTRATION * part
        total += gammaln(prior + count) - gammaln(prior) - count * np.log(part)
    return total


@dataclass(slots=True)
class SampleRatio:
    """Array form of ``fiduciary.evidence.samples.SampleRatio`` for two arms.

    ``share``: the challenger's in the open segment, one a replication; 0 before the first split.
    """

    share: Floats
    champion: Floats
    challenger: Floats
    settled: Floats

    @classmethod
    def start(cls, replications: int) -> SampleRatio:
        return cls(*(np.zeros(replications) for _ in range(4)))

    def fold(self, share: Floats, champion: Floats, challenger: Floats) -> SampleRatio:
        """With one block; where ``share`` is not strictly between 0 and 1 nothing is folded."""
        splits = (share > 0.0) & (share < 1.0)
        turns = splits & (share != self.share)
        settled = np.where(turns, self.log_e(), self.settled) if turns.any() else self.settled
        kept = splits & ~turns
        return SampleRatio(
            np.where(splits, share, self.share),
            np.where(splits, np.where(kept, self.champion, 0.0) + champion, self.champion),
            np.where(splits, np.where(kept, self.challenger, 0.0) + challenger, self.challenger),
            settled,
        )

    def log_e(self) -> Floats:
        begun = self.share > 0.0
        factor = log_bayes_factor(np.where(begun, self.share, 0.5), self.champion, self.challenger)
        return self.settled + np.where(begun, factor, 0.0)

    def shortfall(self) -> NDArray[np.bool_]:
        """Whether the challenger got less than its share in the open segment."""
        return self.challenger < self.share * (self.challenger + self.champion)


def breaker_trips(
    challenger: Counts, champion: Counts, above: float, normal: float, evaluations: int
) -> NDArray[np.bool_]:
    """Whether ``fiduciary.evidence.breaker.circuit_breaker`` trips, as booleans.

    The tail is computed only where the rate is above the limit: everywhere else the answer is no.
    """
    seen = champion.bad / np.where(champion.trials > 0.0, champion.trials, 1.0)
    base = np.maximum(normal, np.where(champion.trials > 0.0, seen, 0.0))
    rate = challenger.bad / np.where(challenger.trials > 0.0, challenger.trials, 1.0)
    suspects = np.flatnonzero((challenger.trials > 0.0) & (rate > above) & (base < 1.0))
    trips = np.zeros(challenger.trials.shape, dtype=bool)
    if suspects.size:
        tail = binom.logsf(challenger.bad[suspects] - 1.0, challenger.trials[suspects], base[suspects])
        trips[suspects] = tail <= math.log(LEVEL) - math.log(evaluations)
    return trips
