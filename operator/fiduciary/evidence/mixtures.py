"""Mixture supermartingales of (s, v) and the boundaries that they give: normal, gamma-exponential, gamma-Poisson,
beta-binomial.

s is a sum of centred observations, v its intrinsic time (variance so far); ``exp(log_e_…)`` is a supermartingale with
mean at most 1 under the sub-ψ condition that the name says, so ``s`` leaves the boundary at 1/α with probability at
most α at any time. Source: Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49(2): propositions 5
and 6 (normal), 7 and 8 (beta-binomial), 9 (gamma-exponential), 10 (gamma-Poisson); the tuning ρ:
section 3.6 there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.evidence.distributions import normal_cdf
from fiduciary.evidence.refusal import Refusal, Why, check_open_unit, check_positive
from fiduciary.evidence.tails import (
    log_beta_whole,
    log_lower_gamma_ratio,
    log_upper_beta_ratio,
    log_upper_gamma_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def best_rho(v_opt: float, alpha: float) -> float | Refusal:
    """v_opt/(2 ln 1/α + ln(1 + 2 ln 1/α)): the boundary is tightest near v_opt. One-sided mixtures: pass 2α.

    Args: v_opt > 0 in the unit of v; alpha in (0, 1).
    """
    problem = check_positive("v_opt", v_opt) or check_open_unit("alpha", alpha)
    if problem is not None:
        return problem
    twice = -2.0 * math.log(alpha)
    return v_opt / (twice + math.log1p(twice))


def log_e_normal(s: float, v: float, rho: float) -> float:
    """½ ln(ρ/(v+ρ)) + s²/(2(v+ρ)): two-sided, for sub-Gaussian sums (Robbins 1970, equation 14)."""
    return 0.5 * (math.log(rho / (v + rho)) + s * (s / (v + rho)))


def log_e_normal_one_sided(s: float, v: float, rho: float) -> float:
    """½ ln(4ρ/(v+ρ)) + s²/(2(v+ρ)) + ln Φ(s/√(v+ρ)): half-normal mixture, evidence for s > 0."""
    z = s / math.sqrt(v + rho)
    # below -30 Φ(z) nears underflow; its asymptotic series (DLMF 7.12.1) has no such limit
    log_phi = (
        math.log(normal_cdf(z)) if z > -30.0 else -0.5 * z * z - math.log(-z) - 0.5 * math.log(2 * math.pi) - 1 / z**2
    )
    return 0.5 * math.log(4.0 * rho / (v + rho)) + 0.5 * z * z + log_phi


def log_e_gamma_exponential(s: float, v: float, rho: float, c: float) -> float:
    """Sub-exponential sums of scale c, evidence for s > 0: ln of the ratio of two incomplete gamma integrals.

    With A = (v+ρ)/c² and y = (cs+v+ρ)/c²: ln[γ(A, y) eʸ y⁻ᴬ] - the same at s = v = 0. This equals the published
    ``k ln k - ln Γ(k) - ln P(k,k) + ln Γ(A) + ln P(A, C+k) - A ln(C+k) + C`` (k = ρ/c², C = (cs+v)/c²) but has no
    cancelling logarithms, and it goes on where y <= 0.

    Args: v >= 0, ρ > 0, c > 0, in the units of s², s², s.
    """
    k, a = rho / (c * c), (v + rho) / (c * c)
    return log_lower_gamma_ratio(a, a + s / c) - log_lower_gamma_ratio(k, k)


def log_e_gamma_poisson(s: float, v: float, rho: float, c: float) -> float:
    """Sub-Poisson sums of scale c, evidence for s > 0; arguments as above, s >= -(v+ρ)/c."""
    k, x = rho / (c * c), (v + rho) / (c * c)
    return log_upper_gamma_ratio(max(x + s / c, 1e-300), x) - log_upper_gamma_ratio(k, k)


def log_e_beta_binomial(s: float, v: float, rho: float, g: float, h: float, *, one_sided: bool) -> float:
    """Sums of bounded observations in [-g, h] (sub-Bernoulli), as y = (v+hs)/(h(g+h)) successes of v/(gh) trials.

    Beta mixture around p₀ = g/(g+h) with prior weight (ρ - gh)/(gh) trials, one-sided: truncated to p > p₀.

    Args: -v/h <= s <= v/g; g, h > 0; ρ > 0.
    """
    weight = max(rho - g * h, 1e-3 * g * h)
    both = g + h
    a, b = weight / (h * both), weight / (g * both)
    wins, losses = max(0.0, (v + h * s) / (h * both)), max(0.0, (v - g * s) / (g * both))
    ratio = log_upper_beta_ratio if one_sided else log_beta_whole
    return ratio(a + wins, b + losses, g / both) - ratio(a, b, g / both)


def boundary(log_e: Callable[[float], float], log_threshold: float, top: float) -> float | Refusal:
    """The smallest s in [0, top] at which ``log_e`` reaches ``log_threshold``, by bisection to the last bit.

    Args:
        log_e: of s at a fixed v, increasing for s >= 0.
        log_threshold: ln 1/α.
        top: a sum that is certainly large enough.
    """
    if not (top > 0.0 and log_e(top) >= log_threshold):
        return Refusal(Why.PARAMETER, f"the mixture does not reach {log_threshold} up to s = {top}")
    low, high = 0.0, top
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if log_e(middle) < log_threshold:
            low = middle
        else:
            high = middle
    return high
