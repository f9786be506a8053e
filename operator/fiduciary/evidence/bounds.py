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


def bounds(
    estimate: float, standard_error: float | None, folds: Sequence[float | None] | None, alpha: float
) -> Bounds | None:
    """One-sided 1 - ``alpha`` bounds of a walk-forward estimate; None where neither method has what it needs.

    Two intervals, of which the wider side counts: ``estimate ± z_{1-α} se`` with a Newey–West standard error (Newey &
    West 1987), and the t interval over fold means ``mean(f) ± t_{k-1, 1-α} sd(f)/√k`` (k folds; 2.015 sd/√6 for six
    folds at α = .05), which needs no bandwidth and sees slow changes that 20 lags do not.

    Args:
        estimate: over all out-of-sample days.
        standard_error: Newey–West, of the estimate; None if unavailable.
        folds: the statistic on each fold; None entries make the t interval unavailable.
        alpha: one-sided error probability.
    """
    candidates: list[tuple[str, float, float]] = []
    if standard_error is not None:
        reach = normal_quantile(1.0 - alpha) * standard_error
        candidates.append(("Newey–West, 20 lags", estimate - reach, estimate + reach))
    known = [value for value in folds or () if value is not None]
    if folds is not None and len(known) == len(folds) >= 2:
        mean = math.fsum(known) / len(known)
        variance = math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
        reach = student_t_quantile(1.0 - alpha, len(known) - 1) * math.sqrt(variance / len(known))
        candidates.append((f"t over {len(known)} folds", mean - reach, mean + reach))
    if not candidates:
        return None
    method, lower, _ = min(candidates, key=lambda candidate: candidate[1])
    return Bounds(lower, max(upper for _, _, upper in candidates), 1.0 - alpha, method)
