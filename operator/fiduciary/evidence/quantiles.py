"""Latency from histograms: tests at a bucket edge, and confidence sequences of quantiles that round outward.

``histogram_quantile`` never feeds a test: it interpolates and has no n. "p99 <= L" is P(X <= L) >= .99 with L on an
edge, hence a proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_next, check_open_unit, check_trials
from fiduciary.evidence.tails import log_beta_whole, log_upper_beta_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.evidence.blocks import Counts

PRIOR = 20.0


@dataclass(frozen=True, slots=True)
class AboveEdge:
    """State of the e-process against H0: P(X > edge | past) <= ``allowed`` (a service level, of one arm alone).

    Beta mixture of Bernoulli likelihoods, truncated to rates above ``allowed``; the prior is worth 20 bad requests'
    trials around it. Relative to the champion, the same counts go into :mod:`fiduciary.evidence.harm`.
    Source: Howard et al. (2021), Annals of Statistics 49(2), proposition 8. Latency comes in bursts: the increment of
    each block is divided by the dispersion φ known before it, which rule 3 demands.
    """

    allowed: float
    last: int
    trials: int
    above: int
    log_e: float

    @classmethod
    def start(cls, allowed: float) -> AboveEdge | Refusal:
        """Nothing folded yet; ``allowed`` between 1e-9 and 1 - 1e-9, .01 for a p99."""
        if not 1e-9 <= allowed <= 1.0 - 1e-9:
            return Refusal(Why.PARAMETER, f"allowed is {allowed}; expected 1e-9 to 1 - 1e-9")
        return cls(allowed, -1, 0, 0, 0.0)

    def fold(self, first: int, last: int, counts: Counts, dispersion: float) -> AboveEdge | Refusal:
        """With the next block: trials = observations, bad = those above the edge; ``dispersion`` φ >= 1.

        Associative with φ = 1: the increments then telescope to the mixture of the sums.
        """
        problem = check_next(self.last, first, last) or check_trials("latency", counts.trials, counts.bad)
        if problem is None and not 1.0 <= dispersion < math.inf:
            problem = Refusal(Why.PARAMETER, f"dispersion is {dispersion}; expected at least 1")
        trials, above = self.trials + counts.trials, self.above + counts.bad
        if problem is None and trials > MAX_COUNT:
            problem = Refusal(Why.TOO_LARGE, "more than 2^53 observations")
        if problem is not None:
            return problem
        step = self._mixture(trials, above) - self._mixture(self.trials, self.above)
        return replace(self, last=last, trials=trials, above=above, log_e=self.log_e + step / dispersion)

    def _mixture(self, trials: int, above: int) -> float:
        weight = PRIOR / self.allowed
        a, b = weight * self.allowed, weight * (1.0 - self.allowed)
        return log_upper_beta_ratio(a + above, b + (trials - above), self.allowed)


@dataclass(frozen=True, slots=True)
class QuantileBounds:
    """Edges between which the quantile lies; None: beyond the first or last edge."""

    lower: float | None
    upper: float | None


def quantile_bounds(
    edges: Sequence[float], cumulative: Sequence[int], trials: int, quantile: float, alpha: float, planned: int
) -> QuantileBounds | Refusal:
    """Confidence sequence of a quantile from cumulative bucket counts, valid at all times together.

    At each edge b, F(b) = p is tested by a beta-binomial mixture on (n, number <= b): the lower bound is the largest
    edge at which F is shown to be below p, the upper one the smallest at which it is shown to be above.
    Source: Howard & Ramdas (2022), Bernoulli 28(3), theorem 1. H0 of each edge: P(X <= b | past) = p.

    Args:
        edges: finite bucket edges, increasing.
        cumulative: observations <= edge, the same length.
        trials: all observations.
        quantile: p, 1e-9 to 1 - 1e-9.
        alpha: of both sides together, in (0, 1).
        planned: observations at which the bounds should be tightest.
    """
    problem = check_open_unit("alpha", alpha)
    if not 1e-9 <= quantile <= 1.0 - 1e-9:
        problem = Refusal(Why.PARAMETER, f"quantile is {quantile}; expected 1e-9 to 1 - 1e-9")
    if problem is not None:
        return problem
    if len(edges) != len(cumulative) or not 1 <= planned <= MAX_COUNT:
        return Refusal(Why.PARAMETER, f"{len(edges)} edges, {len(cumulative)} counts, {planned} planned observations")
    if any(low >= high for low, high in pairwise(edges)) or not all(map(math.isfinite, edges)):
        return Refusal(Why.MALFORMED, "edges are not increasing and finite")
    if any(low > high for low, high in pairwise(cumulative)):
        return Refusal(Why.MALFORMED, "cumulative counts fall: a series was reset or is missing")
    for count in cumulative:
        problem = check_trials("histogram", trials, count)
        if problem is not None:
            return problem
    # the best prior weight of a proportion: planned / (2 ln 1/α + ln(1 + 2 ln 1/α)), as trials
    twice = -2.0 * math.log(alpha)
    weight = planned / (twice + math.log1p(twice))
    a, b = weight * quantile, weight * (1.0 - quantile)
    start = log_beta_whole(a, b, quantile)
    lower, upper = None, None
    for edge, count in zip(edges, cumulative, strict=True):
        evidence = log_beta_whole(a + count, b + (trials - count), quantile) - start
        if evidence >= -math.log(alpha):
            if count < quantile * trials:
                lower = edge
            elif upper is None:
                upper = edge
    return QuantileBounds(lower, upper)
