"""Distances between two histograms over the same bins: PSI, Jensen–Shannon, Kolmogorov–Smirnov, Wasserstein.

Unit: counts per bin, each (entity, feature time) once. Descriptions, not tests: their level under no drift depends on
the number of rows and on autocorrelation (PSI > .1 in 77 % of windows of 50 independent rows, drift A5), so they are
ranked among reference blocks (:mod:`fiduciary.evidence.conformal`) and never compared with a fixed .1 or .25.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_count, check_open_unit, check_positive
from fiduciary.evidence.tails import chi_square_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

SMOOTHING = 0.5


Shares = tuple[float, ...]


def _shares(reference: Sequence[int], current: Sequence[int], smoothing: float) -> tuple[Shares, list[float]] | Refusal:
    """Of the reference, and of what is compared with it."""
    expected = _reference_shares(tuple(reference), smoothing)
    if isinstance(expected, Refusal):
        return expected
    if len(expected) != len(current):
        return Refusal(Why.MALFORMED, f"{len(reference)} and {len(current)} bins; expected the same number, at least 2")
    total = _total(current)
    if isinstance(total, Refusal):
        return total
    other = total + len(current) * smoothing
    return expected, [(count + smoothing) / other for count in current]


@lru_cache(maxsize=1 << 15)
def _reference_shares(reference: tuple[int, ...], smoothing: float) -> Shares | Refusal:
    """Window after window is compared with the same reference."""
    if len(reference) < 2:
        return Refusal(Why.MALFORMED, f"a reference of {len(reference)} bins; expected at least 2")
    total = _total(reference)
    if isinstance(total, Refusal):
        return total
    whole = total + len(reference) * smoothing
    return tuple([(count + smoothing) / whole for count in reference])


def _total(counts: Sequence[int]) -> int | Refusal:
    if min(counts) < 0 or max(counts) > MAX_COUNT:
        problems = (check_count("bin", count) for count in counts)
        return next(problem for problem in problems if problem is not None)
    total = sum(counts)
    if total == 0:
        return Refusal(Why.NO_TRIALS, "no rows at all; expected some of the reference and some current ones")
    return total if total <= MAX_COUNT else Refusal(Why.TOO_LARGE, "more than 2^53 rows")


def psi(reference: Sequence[int], current: Sequence[int]) -> float | Refusal:
    """Population stability index ``Σ (c - r) ln(c/r)`` with ½ added to each bin; symmetric, >= 0.

    Source: Jeffreys (1946), Proc. R. Soc. A 186 (the J divergence); smoothing: Krichevsky & Trofimov (1981).
    """
    shares = _shares(reference, current, SMOOTHING)
    if isinstance(shares, Refusal):
        return shares
    log = math.log
    return math.fsum([(c - r) * log(c / r) for r, c in zip(*shares, strict=True)])


def psi_null_quantile(probability: float, reference_rows: int, current_rows: int, bins: int) -> float | Refusal:
    """Quantile of PSI for independent rows without drift: (1/n + 1/m) χ²_{B-1}.

    Source: Yurdakul & Naranjo (2020), J. Risk Model Validation 14(4). Invalid for autocorrelated rows: at AR(1) .9 a
    1 % threshold is passed in 67 % of windows (drift A5).
    """
    if not (1 <= reference_rows <= MAX_COUNT and 1 <= current_rows <= MAX_COUNT and 2 <= bins <= 10**6):
        return Refusal(
            Why.PARAMETER, f"{reference_rows} and {current_rows} rows in {bins} bins; expected rows, 2 to 10^6 bins"
        )
    problem = check_open_unit("probability", probability)
    return problem or (1.0 / reference_rows + 1.0 / current_rows) * chi_square_quantile(probability, bins - 1)


def jensen_shannon(reference: Sequence[int], current: Sequence[int]) -> float | Refusal:
    """Jensen–Shannon distance, the root of the divergence to base 2: a metric in [0, 1].

    Source: Endres & Schindelin (2003), IEEE Trans. Inf. Theory 49(7).
    """
    shares = _shares(reference, current, 0.0)
    if isinstance(shares, Refusal):
        return shares
    total = 0.0
    for r, c in zip(*shares, strict=True):
        middle = 0.5 * (r + c)
        total += math.fsum(0.5 * p * math.log2(p / middle) for p in (r, c) if p > 0.0)
    return math.sqrt(min(1.0, max(0.0, total)))


def kolmogorov_smirnov(reference: Sequence[int], current: Sequence[int]) -> float | Refusal:
    """Largest difference of the distribution functions at bin edges: a lower bound of the raw statistic, in [0, 1]."""
    steps = _cumulative_differences(reference, current)
    return steps if isinstance(steps, Refusal) else min(1.0, max(steps))


def wasserstein(
    edges: Sequence[float], reference: Sequence[int], current: Sequence[int], sd: float = 1.0
) -> float | Refusal:
    """Σ |difference of distribution functions| × width over the finite bins, divided by ``sd``.

    Exact for the distributions that put each bin's mass at its upper edge (the last bin's at the last edge).
    Source: Vallender (1974), Theory Probab. Appl. 18(4) (W₁ on the line). Mass that moves within a bin, or within an
    open tail bin, is not seen.

    Args:
        edges: finite, increasing; bins are (-inf, e₀], (e₀, e₁], …, (e_last, inf): one more than edges.
        reference, current: counts per bin.
        sd: reference standard deviation, > 0, which makes features comparable.
    """
    problem = check_positive("sd", sd)
    if problem is not None:
        return problem
    if len(edges) != len(reference) - 1 or not all(abs(edge) <= 1e100 for edge in edges):
        return Refusal(Why.MALFORMED, f"{len(edges)} edges for {len(reference)} bins; expected one less, finite")
    if any(low >= high for low, high in pairwise(edges)):
        return Refusal(Why.MALFORMED, "edges are not increasing")
    steps = _cumulative_differences(reference, current)
    if isinstance(steps, Refusal):
        return steps
    widths = (high - low for low, high in pairwise(edges))
    distance = math.fsum(step * width for step, width in zip(steps, widths, strict=False)) / sd
    if math.isfinite(distance):
        return distance
    return Refusal(Why.TOO_LARGE, f"edges span too far for an sd of {sd}; they are of different units")


def _cumulative_differences(reference: Sequence[int], current: Sequence[int]) -> list[float] | Refusal:
    """|F_current - F_reference| at each edge between bins."""
    shares = _shares(reference, current, 0.0)
    if isinstance(shares, Refusal):
        return shares
    n, m = sum(reference), sum(current)
    left, right, steps = 0, 0, list[float]()
    for r, c in zip(reference[:-1], current[:-1], strict=True):
        left, right = left + r, right + c
        steps.append(abs(left / n - right / m))
    return steps
