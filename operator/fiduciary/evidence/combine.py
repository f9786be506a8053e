"""One verdict from several e-processes: their weighted average, which is an e-process again (statistics.md rule 4).

Source: Vovk & Wang (2021), Annals of Statistics 49(3), proposition 3.1 (the arithmetic mean is the admissible
symmetric merger of dependent e-values). Only true e-processes may enter; an asymptotic test gets its own share of α.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.logspace import log_sum_exp
from fiduciary.evidence.refusal import Refusal, Why, check_open_unit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Combined:
    """ln Σ wᵢ Eᵢ and the test that contributes most to it."""

    log_e: float
    largest: str

    def rejects(self, alpha: float) -> bool:
        """Σ wᵢ Eᵢ >= 1/α; False for an α outside (0, 1)."""
        return check_open_unit("alpha", alpha) is None and self.log_e >= -math.log(alpha)


def weighted_average(log_e: Mapping[str, float], weights: Mapping[str, float] | None = None) -> Combined | Refusal:
    """Σ wᵢ Eᵢ over named tests of one global null hypothesis (each Hᵢ holds); valid under any dependence.

    Args:
        log_e: logarithms of the e-processes, at least one.
        weights: for the same names, chosen before any data, each >= 0, sum 1; None: equal.
    """
    if not log_e:
        return Refusal(Why.TOO_FEW, "no test to combine; expected at least one")
    shares = weights if weights is not None else {name: 1.0 / len(log_e) for name in log_e}
    if set(shares) != set(log_e):
        return Refusal(Why.PARAMETER, f"weights are given for {sorted(shares)}, tests are {sorted(log_e)}")
    # Each is looked at before the sum: numbers near the largest float would overflow it.
    if not all(0.0 <= share <= 1.0 + 1e-9 for share in shares.values()) or abs(math.fsum(shares.values()) - 1.0) > 1e-9:
        return Refusal(Why.PARAMETER, f"weights are {dict(shares)}; expected numbers >= 0 that sum to 1")
    for name, value in log_e.items():
        if math.isnan(value) or value == math.inf:
            return Refusal(Why.NOT_FINITE, f"log e of {name} is {value}; expected a number")
    terms = {name: math.log(shares[name]) + value for name, value in log_e.items() if shares[name] > 0.0}
    return Combined(log_sum_exp(terms.values()), max(sorted(terms), key=lambda name: terms[name]))
