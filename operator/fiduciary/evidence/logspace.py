"""Sums of numbers that are only known by their logarithms, and differences of logarithms that keep their digits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def log_sum_exp(terms: Iterable[float]) -> float:
    """ln Σ exp(term); -inf for no terms or only -inf ones. Never overflows."""
    known = list(terms)
    top = max(known, default=-math.inf)
    if top == -math.inf:
        return -math.inf
    return top + math.log(math.fsum(math.exp(term - top) for term in known))


def log_one_minus_exp(x: float) -> float:
    """ln(1 - eˣ) for x <= 0; -inf at 0. Source: Mächler (2012), "Accurately computing log(1 - exp(-|a|))", eq. 7."""
    if x >= 0.0:
        return -math.inf
    return math.log(-math.expm1(x)) if x > -math.log(2.0) else math.log1p(-math.exp(x))


def log1p_minus(x: float) -> float:
    """ln(1 + x) - x for x > -1, to about 1e-15 relative also where both are nearly equal.

    With r = x/(2 + x): ln(1 + x) = 2 artanh r and 2r - x = -x r. Source: DLMF (2010) 4.6.4.
    """
    if not -0.5 < x < 0.5:
        return math.log1p(x) - x
    r = x / (2.0 + x)
    square = r * r
    term, total, odd = r * square, 0.0, 3
    while abs(term) > 1e-18 * abs(x * r):
        total += term / odd
        term *= square
        odd += 2
    return 2.0 * total - x * r


def expm1_minus(x: float) -> float:
    """eˣ - 1 - x, to about 1e-15 relative also near 0 (its Taylor series there); inf where eˣ overflows."""
    if x > 709.0:
        return math.inf
    if not -0.5 < x < 0.5:
        return math.expm1(x) - x
    term, total, n = 0.5 * x * x, 0.0, 2
    while term and abs(term) > 1e-18 * total:
        total += term
        n += 1
        term *= x / n
    return total


def as_float(log_value: float) -> float:
    """exp of a log e-value for display; the largest float where it would overflow, never inf."""
    return math.exp(min(log_value, 709.0))
