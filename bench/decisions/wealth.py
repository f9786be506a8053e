"""Array form of ``fiduciary.evidence.betting.Betting``: sessions of all replications at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammainc, gammaln

from fiduciary.evidence.betting import BETS, BLOCK, CLIP, PRIOR_BLOCKS, PRIOR_RATIO

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats


@dataclass(slots=True)
class Moments:
    """Array form of ``fiduciary.evidence.moments.Moments``; the count is the same in all replications."""

    count: int
    mean: Floats
    squares: Floats

    @classmethod
    def empty(cls, replications: int) -> Moments:
        return cls(0, np.zeros(replications), np.zeros(replications))

    def merge(self, count: int, mean: Floats, squares: Floats) -> Moments:
        total = self.count + count
        step, share = mean - self.mean, count / total
        return Moments(total, self.mean + step * share, self.squares + squares + step * step * self.count * share)


@dataclass(slots=True)
class Betting:
    """Log wealth of the ten stakes (shape: bets × replications) and what φ needs."""

    scale: Floats
    null: float
    log_wealth: Floats
    settled: Moments
    open: Moments
    blocks: Moments

    @classmethod
    def start(cls, scale: Floats, null: float = 0.0) -> Betting:
        n = scale.size
        wealth = np.zeros((len(BETS), n))
        return cls(scale, null, wealth, Moments.empty(n), Moments.empty(n), Moments.empty(n))

    def dispersion(self) -> Floats:
        m = self.blocks.count
        if m < 2:
            ratio = np.zeros_like(self.scale)
        else:
            variance = self.settled.squares / (self.settled.count - 1)
            ratio = self.blocks.squares / (BLOCK * np.where(variance > 0.0, variance, 1.0))
            ratio = np.where(variance > 0.0, ratio, 0.0)
        return np.maximum(1.0, (PRIOR_BLOCKS * PRIOR_RATIO + ratio) / (PRIOR_BLOCKS + max(0, m - 1)))

    def fold(self, difference: Floats) -> None:
        """In place, with the next session's difference d (positive: the challenger was better)."""
        z = np.clip(difference / self.scale, -CLIP, CLIP)
        phi = self.dispersion()
        stakes = np.array(BETS)[:, None]
        self.log_wealth += np.log1p(stakes * (z - self.null)) / phi
        self.open = self.open.merge(1, z, np.zeros_like(z))
        if self.open.count == BLOCK:
            self.settled = self.settled.merge(BLOCK, self.open.mean, self.open.squares)
            self.blocks = self.blocks.merge(1, BLOCK * self.open.mean, np.zeros_like(z))
            self.open = Moments.empty(z.size)

    def log_e(self) -> Floats:
        top = self.log_wealth.max(axis=0)
        return top + np.log(np.exp(self.log_wealth - top).sum(axis=0)) - math.log(len(BETS))


def bounded_crossings(profits: Floats, scale: Floats, bound: float, threshold: float) -> Floats:
    """The same for ``fiduciary.evidence.bernstein.Bernstein`` as ``decide`` starts it: null 0, floor -bound.

    A profit below the floor voids all evidence from then on: the declared bound was wrong.

    Args:
        profits: shape (replications, sessions), in the unit of ``bound``.
        scale: sd of the burn-in, one a replication.
    """
    rho = 250.0 * scale**2 / _tuning()
    s, v, total = np.zeros(scale.size), np.zeros(scale.size), np.zeros(scale.size)
    first, void = np.full(scale.size, np.inf), np.zeros(scale.size, dtype=bool)
    for k in range(profits.shape[1]):
        x = profits[:, k]
        void |= x < -bound
        guess = np.minimum(total / k if k else 0.0, 0.0)
        s, v, total = s + x, v + (x - guess) ** 2, total + x
        log_e = log_e_gamma_exponential(s, v, rho, bound)
        first = np.where(np.isinf(first) & ~void & (log_e >= threshold), k + 1.0, first)
    return first


def _tuning() -> float:
    """best_rho's divisor for α = .1."""
    twice = -2.0 * math.log(0.1)
    return twice + math.log1p(twice)


def log_e_gamma_exponential(s: Floats, v: Floats, rho: Floats, c: float) -> Floats:
    """Array form of the operator's function; -inf where s is below -(v+ρ)/c, far from any threshold."""
    k, a = rho / (c * c), (v + rho) / (c * c)
    y = a + s / c
    inside = y > 0.0
    return np.where(inside, _log_lower_gamma_ratio(a, np.where(inside, y, 1.0)) - _log_lower_gamma_ratio(k, k), -np.inf)


def _log_lower_gamma_ratio(a: Floats, x: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(gammainc(a, x)) + gammaln(a) + x - a * np.log(x)


def crossings(differences: Floats, scale: Floats, threshold: float, null: float = 0.0) -> tuple[Floats, Floats]:
    """First session (from 1; inf: never) at which log e reaches the threshold, and log e at the end.

    Args:
        differences: shape (replications, sessions).
        scale: frozen sd, one a replication.
        threshold: ln N/α_j.
    """
    state = Betting.start(scale, null)
    first = np.full(scale.size, np.inf)
    log_e = np.zeros(scale.size)
    for k in range(differences.shape[1]):
        state.fold(np.ascontiguousarray(differences[:, k]))
        log_e = state.log_e()
        first = np.where(np.isinf(first) & (log_e >= threshold), k + 1.0, first)
    return first, log_e
