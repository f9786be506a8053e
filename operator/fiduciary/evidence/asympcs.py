"""Asymptotic confidence sequences of a mean of block statistics: for display, or with a share of α of their own.

One observation is one block difference; blocks at least ten correlation times long make the variance a long-run one.
Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Annals of Statistics 52(6): theorem 2.2 (two-sided),
appendix B.10 for the one-sided sequence and the tuning. Invalid for few blocks (20 at least) and for tails that have
not been seen: asymptotic means that a short-volatility profit passes (size .21, statistics.md 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_open_unit

if TYPE_CHECKING:
    from fiduciary.evidence.moments import Moments

LEAST_BLOCKS = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds in the unit of the estimate; ``lower`` or ``upper`` None: not bounded on that side."""

    estimate: float
    lower: float | None
    upper: float | None


def tuning(alpha: float, planned: int) -> float | Refusal:
    """r = √((-2 ln α + ln(1 - 2 ln α))/K*): the sequence is tightest at K* blocks. One-sided: pass 2α.

    Args:
        alpha: in (0, 1).
        planned: K*, at least 1.
    """
    if not 1 <= planned <= MAX_COUNT:
        return Refusal(Why.PARAMETER, f"planned blocks are {planned}; expected 1 to 2^53")
    squared = -2.0 * math.log(alpha) if 0.0 < alpha < 1.0 else 1.0
    return check_open_unit("alpha", alpha) or math.sqrt((squared + math.log1p(squared)) / planned)


def radius(sd: float, blocks: int, r: float, alpha: float) -> float:
    """s √(2(Kr²+1)/(K²r²) ln(√(Kr²+1)/α)): half the width after K blocks.

    Args: sd > 0; K >= 1; r from :func:`tuning`; alpha in (0, 1).
    """
    return sd * _shape(blocks, r, 0.5 * math.log1p(blocks * r * r) - math.log(alpha))


def _shape(blocks: int, r: float, log_term: float) -> float:
    kr = blocks * r * r
    return math.sqrt(2.0 * (1.0 + 1.0 / kr) * log_term / blocks)


def two_sided(moments: Moments, alpha: float, planned: int, least: int = LEAST_BLOCKS) -> Interval | Refusal:
    """mean ± radius, simultaneously for all numbers of blocks with asymptotic probability 1 - α.

    Args:
        moments: of the block differences.
        alpha: in (0, 1).
        planned: blocks at which it should be tightest.
        least: fewer blocks are refused.
    """
    r, sd = tuning(alpha, planned), _sd(moments, least)
    if isinstance(r, Refusal):
        return r
    if isinstance(sd, Refusal):
        return sd
    half = radius(sd, moments.count, r, alpha)
    return Interval(moments.mean, moments.mean - half, moments.mean + half)


def one_sided_lower(moments: Moments, alpha: float, planned: int, least: int = LEAST_BLOCKS) -> Interval | Refusal:
    """mean - s √(2(Kr²+1)/(K²r²) ln(1 + √(Kr²+1)/(2α))); arguments as :func:`two_sided`, α < ½."""
    r, sd = tuning(2.0 * alpha, planned), _sd(moments, least)
    if isinstance(r, Refusal):
        return r
    if isinstance(sd, Refusal):
        return sd
    root = math.sqrt(1.0 + moments.count * r * r)
    half = sd * _shape(moments.count, r, math.log1p(root / (2.0 * alpha)))
    return Interval(moments.mean, moments.mean - half, None)


def log_e(moments: Moments, r: float, least: int = LEAST_BLOCKS) -> float | Refusal:
    """r²t²/(2(Kr²+1)) - ½ ln(Kr²+1) with t = Σx/s: asymptotic e-value against H0: each block's mean is 0.

    Args: as :func:`two_sided`; r from :func:`tuning`.
    """
    sd = _sd(moments, least)
    if isinstance(sd, Refusal):
        return sd
    if not 0.0 < r <= 1e6:
        return Refusal(Why.PARAMETER, f"r is {r}; expected a positive number from tuning()")
    t = moments.count * (moments.mean / sd)
    kr = moments.count * r * r
    return 0.5 * (r * t) ** 2 / (kr + 1.0) - 0.5 * math.log1p(kr)


def _sd(moments: Moments, least: int) -> float | Refusal:
    if moments.count < least:
        return Refusal(Why.TOO_FEW, f"{moments.count} blocks; an asymptotic sequence needs {least}")
    return moments.sd()
