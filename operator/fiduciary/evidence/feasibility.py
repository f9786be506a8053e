"""Whether a verdict can be expected at all, and after how many blocks (statistics.md rule 16).

Forecasts, not tests: they use expected growth rates and say ``Underpowered`` early; no error probability depends on
them. Source: Wald (1947), Sequential Analysis, section 3.5 (threshold over expected growth); Grünwald, de Heide &
Koolen (2024), JRSS B 86(5), section 2 (growth rate of the best bet).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.proportions import log_factor_noninferiority
from fiduciary.evidence.refusal import Refusal, Why, check_dispersion, check_measure, check_open_unit, check_positive

if TYPE_CHECKING:
    from collections.abc import Callable

_LEARNING = math.log(10.0)
_MOST = 10**9


@dataclass(frozen=True, slots=True)
class Forecast:
    """``blocks`` until the log e-value is expected to reach its threshold; None: never, there is nothing to show."""

    blocks: int | None

    def underpowered(self, planned: int) -> bool:
        """True if no verdict is expected within ``planned`` blocks (maxDuration)."""
        return self.blocks is None or self.blocks > planned


def superiority(effect: float, sd: float, dispersion: float, log_threshold: float) -> Forecast | Refusal:
    """Sessions until the betting mixture is expected to show a mean of ``effect``.

    The best bet λ on z = d/sd grows by λμ - λ²(1+μ²)/2 a session, λ <= .2, divided by φ; one of ten bets costs ln 10.

    Args:
        effect: mean session difference (unit of d), positive is better.
        sd: its standard deviation, > 0.
        dispersion: φ >= 1.
        log_threshold: ln 1/α_j, or ln N/α_j.
    """
    problem = check_measure("effect", effect) or check_positive("sd", sd) or check_dispersion(dispersion)
    problem = problem or check_positive("log threshold", log_threshold)
    if problem is not None:
        return problem
    mean = min(effect / sd, 4.0)
    bet = min(0.2, mean / (1.0 + mean * mean))
    growth = (bet * mean - 0.5 * bet * bet * (1.0 + mean * mean)) / dispersion
    needed = log_threshold + _LEARNING
    if mean <= 0.0 or growth * _MOST < needed:
        return Forecast(None)
    return Forecast(math.ceil(needed / growth))


def bounded_mean(effect: float, sd: float, scale: float, log_threshold: float) -> Forecast | Refusal:
    """Sessions until the empirical Bernstein process is expected to show a mean of ``effect``.

    The best λ grows by λμ - σ²(-ln(1 - cλ) - cλ)/c² a session, at λ = μ/(σ² + cμ); the mixture costs about ln 10.
    Source: Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49(2), theorem 4 (its cumulant bound).

    Args:
        effect: mean above the null value, unit of the observation.
        sd: standard deviation, > 0.
        scale: c > 0, the distance from the declared floor to the null value.
        log_threshold: ln 1/α_j.
    """
    problem = check_measure("effect", effect) or check_positive("sd", sd) or check_positive("scale", scale)
    problem = problem or check_positive("log threshold", log_threshold)
    if problem is not None:
        return problem
    if effect <= 0.0:
        return Forecast(None)
    mean, bound = effect / sd, scale / sd
    bet = mean / (1.0 + bound * mean)
    growth = bet * mean + (math.log1p(-bound * bet) + bound * bet) / (bound * bound)
    needed = log_threshold + _LEARNING
    return Forecast(math.ceil(needed / growth)) if growth * _MOST >= needed else Forecast(None)


def noninferiority(
    trials: tuple[int, int], rate: float, margin: float, dispersion: float, alpha: float
) -> Forecast | Refusal:
    """Blocks until equal arms are expected to be shown within the margin; never, if none of it is left.

    Expected growth of a block: nₐ KL(p‖q) + n_b KL(p‖q + d) over φ, less ½ ln n for learning the challenger's rate.

    Args:
        trials: expected requests per block (champion, challenger).
        rate: p, of both arms, in (0, 1).
        margin: d < 1.
        dispersion: φ >= 1.
        alpha: in (0, 1).
    """
    problem = check_open_unit("rate", rate) or check_open_unit("alpha", alpha)
    if problem is None and margin <= 0.0:
        return Forecast(None)
    problem = problem or check_open_unit("margin", margin)
    problem = problem or check_dispersion(dispersion)
    if problem is not None:
        return problem
    if min(trials) < 0 or max(trials) > 2**53:
        return Refusal(Why.PARAMETER, f"{trials} requests a block; expected 0 to 2^53")
    if 0 in trials:
        return Forecast(None)
    growth = _expected_factor(trials, rate, margin) / dispersion
    needed = -math.log(alpha)
    return _first(lambda k: k * growth - 0.5 * math.log1p(k * trials[1] * rate) / dispersion >= needed)


def _expected_factor(trials: tuple[int, int], rate: float, margin: float) -> float:
    """E[log factor] is linear in the counts, so it is the factor of the two extreme blocks, weighted by the rate."""
    all_good = Block(0, 0, Counts(trials[0], 0), Counts(trials[1], 0))
    all_bad = Block(0, 0, Counts(trials[0], trials[0]), Counts(trials[1], trials[1]))
    good = log_factor_noninferiority(all_good, rate, rate, margin)
    return good + rate * (log_factor_noninferiority(all_bad, rate, rate, margin) - good)


def _first(enough: Callable[[int], bool]) -> Forecast:
    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST:
            return Forecast(None)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return Forecast(high)
