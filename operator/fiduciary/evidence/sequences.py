"""Confidence sequences of rates and their difference, for what status and dashboards show at any time."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from fiduciary.evidence.asympcs import Interval
from fiduciary.evidence.refusal import Refusal, Why, check_open_unit, check_trials
from fiduciary.evidence.tails import log_beta_whole

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Counts


@lru_cache(maxsize=4096)  # status shows it at each evaluation, and the counts are others only after a block
def rate_interval(counts: Counts, alpha: float, prior: tuple[float, float] = (0.5, 0.5)) -> Interval | Refusal:
    """All rates p that the prior-posterior ratio does not reject: ``∫ likelihood dπ / likelihood(p) < 1/α``.

    H0 of each p: each request is bad with probability p given the past. Source: Waudby-Smith & Ramdas (2020),
    NeurIPS, theorem 1; Robbins (1970). Coverage 1 - α at all times together. Invalid with bursts (for those, divide
    by dispersion or use block differences).

    Args:
        counts: all requests so far, at least one.
        alpha: in (0, 1).
        prior: beta prior chosen before the data, both >= .01.
    """
    problem = check_trials("arm", counts.trials, counts.bad) or check_open_unit("alpha", alpha)
    if problem is not None:
        return problem
    if not (0.01 <= prior[0] <= 1e15 and 0.01 <= prior[1] <= 1e15):
        return Refusal(Why.PARAMETER, f"prior is {prior}; expected both between .01 and 1e15")
    if counts.trials == 0:
        return Refusal(Why.NO_TRIALS, "no requests: there is no rate to show")
    estimate = counts.bad / counts.trials
    lower = _edge(counts, alpha, prior, upper=False) if counts.bad else 0.0
    upper = _edge(counts, alpha, prior, upper=True) if counts.bad < counts.trials else 1.0
    return Interval(estimate, lower, upper)


def _log_e(counts: Counts, prior: tuple[float, float], p: float) -> float:
    a, b = prior
    whole = log_beta_whole(a + counts.bad, b + (counts.trials - counts.bad), p)
    return whole - log_beta_whole(a, b, p)


def _edge(counts: Counts, alpha: float, prior: tuple[float, float], *, upper: bool) -> float:
    """The rate on one side of the estimate at which it is rejected, to about 1e-11, rounded outward.

    The Illinois method (Dowell & Jarratt 1971) on the logit of the rate, in which the evidence is nearly straight far
    out. The first end outside is a guess by the normal approximation, doubled until it is outside.
    """

    def excess(logit: float) -> float:
        return _log_e(counts, prior, _rate(logit)) + math.log(alpha)

    inside = _logit(min(max(counts.bad / counts.trials, 1e-300), 1.0 - 2.0**-53))
    end = _logit(1.0 - 2.0**-53) if upper else _logit(1e-300)
    low = excess(inside)
    step = math.sqrt(2.0 * max(1.0, -low) * (1.0 / (counts.bad + 0.5) + 1.0 / (counts.trials - counts.bad + 0.5)))
    outside, high = inside, low
    while high < 0.0:
        if outside == end:
            return 1.0 if upper else 0.0
        inside, low = outside, high
        outside = min(end, outside + step) if upper else max(end, outside - step)
        step *= 2.0
        high = excess(outside)
    kept = 0  # which end the last step left alone: twice the same one, and its value is halved
    for _ in range(200):
        if abs(inside - outside) <= 1e-11 * max(1.0, abs(outside)):
            break
        middle = inside + (outside - inside) * (low / (low - high))
        if not min(inside, outside) < middle < max(inside, outside):
            middle = 0.5 * (inside + outside)
        value = excess(middle)
        if value < 0.0:
            inside, low = middle, value
            high, kept = (0.5 * high if kept == 1 else high), 1
        else:
            outside, high = middle, value
            low, kept = (0.5 * low if kept == -1 else low), -1
    return _rate(outside)


def _logit(rate: float) -> float:
    return math.log(rate) - math.log1p(-rate)


def _rate(logit: float) -> float:
    # exp underflows for neither sign: the larger of both terms is 1
    return math.exp(logit) / (1.0 + math.exp(logit)) if logit < 0.0 else 1.0 / (1.0 + math.exp(-logit))


def difference_interval(champion: Counts, challenger: Counts, alpha: float) -> Interval | Refusal:
    """Challenger's rate minus champion's: both rate intervals at α/2, one's lower against the other's upper bound.

    Exact at all times by the union bound, wider than needed; the tests do not use it. Arguments as
    :func:`rate_interval`.
    """
    problem = check_open_unit("alpha", alpha)
    if problem is not None:
        return problem
    one, other = rate_interval(champion, alpha / 2.0), rate_interval(challenger, alpha / 2.0)
    if isinstance(one, Refusal):
        return one
    if isinstance(other, Refusal):
        return other
    lower, upper = (one.lower or 0.0), (1.0 if one.upper is None else one.upper)
    low, high = (other.lower or 0.0), (1.0 if other.upper is None else other.upper)
    return Interval(other.estimate - one.estimate, low - upper, high - lower)
