"""The score of a window: its distance from the reference, in units of what sampling alone would show.

Windows hold different numbers of rows (a scrape comes late, a session is missing, traffic varies). Under no drift PSI
grows with 1/n + 1/m, the other distances with its root, so that scores are divided by it: ranks among windows of equal
size do not change, and windows of nearly equal size can be ranked together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from fiduciary.evidence.histograms import jensen_shannon, kolmogorov_smirnov, psi, wasserstein
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

Statistic = Literal["PSI", "JS", "KS", "Wasserstein"]


def distance(
    statistic: Statistic, edges: Sequence[float], sd: float, reference: Sequence[int], current: Sequence[int]
) -> float | Refusal:
    """The plain distance; ``sd`` makes Wasserstein's free of the feature's unit."""
    match statistic:
        case "PSI":
            return psi(reference, current)
        case "JS":
            return jensen_shannon(reference, current)
        case "KS":
            return kolmogorov_smirnov(reference, current)
        case "Wasserstein":
            return wasserstein(edges, reference, current, sd)


def sampling(statistic: Statistic, reference_rows: int, current_rows: int) -> float:
    """The size of a distance between two samples of one distribution, up to a constant factor.

    Source: Yurdakul & Naranjo (2020), J. Risk Model Validation 14(4) (PSI: (1/n + 1/m) χ²); for the roots Kolmogorov
    (1933) and del Barrio, Giné & Matrán (1999), Ann. Probab. 27(2).
    """
    size = 1.0 / reference_rows + 1.0 / current_rows
    return size if statistic == "PSI" else math.sqrt(size)


def score(
    statistic: Statistic, edges: Sequence[float], sd: float, reference: Sequence[int], current: Sequence[int]
) -> float | Refusal:
    """Distance over :func:`sampling`, to six digits: what is ranked, and kept in the state."""
    found = distance(statistic, edges, sd, reference, current)
    return found if isinstance(found, Refusal) else rounded(found / sampling(statistic, sum(reference), sum(current)))


def excess(
    statistic: Statistic,
    edges: Sequence[float],
    sd: float,
    reference: Sequence[int],
    current: Sequence[int],
    typical: float,
) -> float | Refusal:
    """Distance less what sampling alone typically shows at this number of rows, at least 0: the size of a drift."""
    found = distance(statistic, edges, sd, reference, current)
    if isinstance(found, Refusal):
        return found
    return max(0.0, found - typical * sampling(statistic, sum(reference), sum(current)))


def rounded(value: float) -> float:
    """Six significant digits: equal on every machine, and short in a status."""
    return float(f"{value:.6g}")


def spread(edges: Sequence[float]) -> float:
    """Standard deviation that a normal distribution with these deciles has: (last - first edge)/2.563, robust."""
    return (edges[-1] - edges[0]) / 2.563 if len(edges) > 1 else 0.0
