"""An estimate of what a window's forecasts will cost, before anybody knows their outcomes. Nothing acts on it.

Each forecast counts with what forecasts of its bin lost in the walk-forward: confidence-based for probabilities, whose
loss the probability itself says, and the conditional mean of the loss for volatilities. Both take it that forecasts are
worth what they were worth then: where the market changed its ways, and not only its state, it stays calm. Measured on
the direction of the S&P 500 (docs/drift.md), its error is larger than any edge there. Source of the idea: Garg et al.
(2022), ICLR; NannyML's CBPE and DLE, by their documentation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.decide.drift.scores import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence


def estimated(expected: Sequence[float | None], counts: Sequence[int]) -> float | None:
    """Mean loss by bin of the prediction. None where a bin has rows and the walk-forward had none there."""
    rows = sum(counts)
    if rows <= 0 or len(expected) != len(counts) or min(counts) < 0:
        return None
    parts: list[float] = []
    for mean, count in zip(expected, counts, strict=True):
        if count and mean is None:
            return None
        parts.append(count * (mean or 0.0))
    return rounded(math.fsum(parts) / rows)
