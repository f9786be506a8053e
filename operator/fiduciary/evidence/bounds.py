"""Confidence bounds of a mean of daily values that was also measured fold by fold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.distributions import normal_quantile, student_t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided bounds at the same level, each by the more cautious of the methods that could be computed.

    ``method`` names the one that decided the lower bound.
    """

    lower: float
    upper: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class Folds:
    """What the t interval needs of the fold values: how many, their mean, their standard deviation (n - 1)."""

    count: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Folds | None:
        """None where a fold has no value, or there are fewer than two."""
        known = [value for value in values if value is not None]
        if len(known) != len(values) or len(known) < 2:
            return None
        mean = math.fsum(known) / len(known)
        variance = math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
        return cls(len(known), mean, math.sqrt(variance))


def bounds(estimate: float, standard_error: float | None, folds: Folds | None, alpha: float) -> Bounds | None:
    """One-sided 1 - ``alpha`` bounds of a walk-forward estimate; None where neither method has what it needs.

    Two intervals, of which the wider side counts: ``estimate ± z_{1-α} se`` with a Newey–West standard error (Newey &
    West 1987), and the t interval over fold means ``mean(f) ± t_{k-1, 1-α} sd(f)/√k`` (k folds; 2.015 sd/√6 for six
    folds at α = .05), which needs no bandwidth and sees slow changes that 20 lags do not.

    Args:
        estimate: over all out-of-sample days.
        standard_error: Newey–West, of the estimate; None if unavailable.
        folds: of the statistic on each fold; None: the t interval is unavailable.
        alpha: one-sided error probability.
    """
    candidates: list[tuple[str, float, float]] = []
    if standard_error is not None:
        reach = normal_quantile(1.0 - alpha) * standard_error
        candidates.append(("Newey–West, 20 lags", estimate - reach, estimate + reach))
    if folds is not None:
        reach = student_t_quantile(1.0 - alpha, folds.count - 1) * folds.sd / math.sqrt(folds.count)
        candidates.append((f"t over {folds.count} folds", folds.mean - reach, folds.mean + reach))
    if not candidates:
        return None
    method, lower, _ = min(candidates, key=lambda candidate: candidate[1])
    return Bounds(lower, max(upper for _, _, upper in candidates), 1.0 - alpha, method)
