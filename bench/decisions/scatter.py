"""Array forms of ``fiduciary.evidence``: dispersion, samples (SRM), breaker. One element a replication."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from fiduciary.evidence.breaker import LEVEL
from fiduciary.evidence.dispersion import SCALES
from fiduciary.evidence.samples import CONCENTRATION
from fiduciary.evidence.tails import chi_square_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.decisions.proportions import Counts, Floats


@lru_cache(maxsize=65536)
def _chi_square(degrees: int) -> float:
    return chi_square_quantile(0.1, degrees)


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

    @classmethod
    def start(cls, scale: int, replications: int) -> Scatter:
        zeros = [np.zeros(replications) for _ in range(6)]
        return cls(scale, zeros[0], zeros[1], zeros[2], zeros[3], 0, zeros[4], zeros[5])

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
        return Scatter(self.scale, self.blocks + seen, total, mean, squares, 0, empty, empty)

    def upper_bound(self) -> Floats:
        """NaN where the operator's refuses: fewer than two blocks, or no variance."""
        variance = self.mean * (1.0 - self.mean)
        usable = (self.blocks >= 2.0) & (variance > 0.0)
        degrees, where = np.unique(np.maximum(self.blocks, 2.0).astype(int) - 1, return_inverse=True)
        quantiles = np.array([_chi_square(int(k)) for k in degrees])[where]
        bound = np.maximum(1.0, self.squares / np.where(usable, variance, 1.0) / quantiles)
        return np.where(usable, bound, np.nan)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Scatter:
        parts = (self.blocks, self.trials, self.mean, self.squares)
        rest = (self.open_trials[chosen], self.open_bad[chosen])
        return Scatter(self.scale, *(part[chosen] for part in parts), self.open_base, *rest)


@dataclass(slots=True)
class Dispersion:
    """Array form of ``fiduciary.evidence.dispersion.Dispersion``."""

    scatters: list[Scatter]

    @classmethod
    def start(cls, replications: int) -> Dispersion:
        return cls([Scatter.start(scale, replications) for scale in SCALES])

    def fold(self, first: int, last: int, counts: Counts) -> Dispersion:
        return Dispersion([scatter.add(counts, last - first + 1) for scatter in self.scatters])

    def estimate(self, least_blocks: int) -> Floats:
        """The largest bound; NaN where the operator's refuses, and its caller uses the declared dispersion."""
        bounds = np.stack([scatter.upper_bound() for scatter in self.scatters])
        known = np.where(np.isnan(bounds), -np.inf, bounds).max(axis=0)
        return np.where((self.scatters[0].blocks >= least_blocks) & np.isfinite(known), known, np.nan)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Dispersion:
        return Dispersion([scatter[chosen] for scatter in self.scatters])


def log_bayes_factor(shares: tuple[float, ...], counts: tuple[Floats, ...]) -> Floats:
    """Array form of ``fiduciary.evidence.samples.Segment.log_bayes_factor``, by log-gamma functions."""
    prior = [CONCENTRATION * share for share in shares]
    total = np.zeros_like(counts[0])
    everything = np.zeros_like(counts[0])
    for alpha, share, count in zip(prior, shares, counts, strict=True):
        total += gammaln(alpha + count) - gammaln(alpha) - count * math.log(share)
        everything += count
    return total + gammaln(sum(prior)) - gammaln(sum(prior) + everything)


@dataclass(slots=True)
class SampleRatio:
    """Array form of ``fiduciary.evidence.samples.SampleRatio``; weights change at the same time everywhere."""

    shares: tuple[float, ...]
    counts: tuple[Floats, ...]
    settled: Floats

    @classmethod
    def start(cls, shares: tuple[float, ...], replications: int) -> SampleRatio:
        return cls(shares, tuple(np.zeros(replications) for _ in shares), np.zeros(replications))

    def fold(self, counts: tuple[Floats, ...]) -> SampleRatio:
        return replace(self, counts=tuple(a + b for a, b in zip(self.counts, counts, strict=True)))

    def reweigh(self, shares: tuple[float, ...]) -> SampleRatio:
        return SampleRatio(shares, tuple(np.zeros_like(self.settled) for _ in shares), self.log_e())

    def log_e(self) -> Floats:
        return self.settled + log_bayes_factor(self.shares, self.counts)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> SampleRatio:
        return SampleRatio(self.shares, tuple(count[chosen] for count in self.counts), self.settled[chosen])


def breaker_trips(challenger: Counts, champion: Counts, above: float, normal: float, evaluations: int) -> Floats:
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
