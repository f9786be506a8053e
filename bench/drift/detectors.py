"""The operator's detector on arrays: many references and streams at once. tests/unit/bench holds it to the operator's.

Ranks, correlation estimate and thresholds are those of :mod:`fiduciary.evidence`, given the same positions among ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fiduciary.evidence.conformal import MOST_LATER
from fiduciary.evidence.cusum import (
    MOST_CORRELATION,
    PRIOR_BLOCKS,
    PRIOR_CORRELATION,
    REFERENCE_VALUE,
    threshold,
)
from fiduciary.evidence.refusal import Refusal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibrated:
    """Of each path: reference scores ``(paths, blocks)``, ρ̂ and threshold; NaN where the detector is descriptive."""

    reference: Floats
    correlation: Floats
    height: Floats

    @property
    def judged(self) -> NDArray[np.bool_]:
        return np.isfinite(self.height)


def calibrated(reference: Floats, run_time: float) -> Calibrated:
    """As ``fiduciary.evidence.conformal.Calibration.of``, for each row of ``reference``."""
    blocks = reference.shape[1]
    z = ndtri((_ranks(reference, "left") + 0.5 * _equal(reference)) / blocks)
    centred = z - z.mean(axis=1, keepdims=True)
    raw = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / (centred**2).sum(axis=1) + 1.0 / blocks
    rho = (blocks * raw + PRIOR_BLOCKS * PRIOR_CORRELATION) / (blocks + PRIOR_BLOCKS)
    return Calibrated(reference, rho, np.array([_height(run_time, value) for value in rho]))


def _ranks(reference: Floats, side: Literal["left", "right"]) -> NDArray[np.int64]:
    """Scores of the same row that are smaller (left), or not larger (right)."""
    ordered = np.sort(reference, axis=1)
    return np.array([np.searchsorted(line, row, side=side) for line, row in zip(ordered, reference, strict=True)])


def _equal(reference: Floats) -> NDArray[np.int64]:
    """Scores of the same row that are equal, itself included."""
    return _ranks(reference, "right") - _ranks(reference, "left")


def _height(run_time: float, rho: float) -> float:
    if rho > MOST_CORRELATION:
        return np.nan
    found = threshold(run_time, float(rho))
    return np.nan if isinstance(found, Refusal) else found


def normal_scores(its: Calibrated, scores: Floats, positions: Floats) -> Floats:
    """z of each window, ``(paths, windows)``: the rank among the reference and the first hundred windows."""
    windows = scores.shape[1]
    if not len(scores):
        return np.empty_like(scores)
    ordered = np.sort(its.reference, axis=1)
    blocks = ordered.shape[1]
    below = np.array([np.searchsorted(line, row, side="left") for line, row in zip(ordered, scores, strict=True)])
    upto = np.array([np.searchsorted(line, row, side="right") for line, row in zip(ordered, scores, strict=True)])
    for k in range(min(MOST_LATER, windows)):
        below[:, k + 1 :] += scores[:, k : k + 1] < scores[:, k + 1 :]
        upto[:, k + 1 :] += scores[:, k : k + 1] <= scores[:, k + 1 :]
    known = blocks + np.minimum(np.arange(windows), MOST_LATER)
    return ndtri((below + positions * (upto - below + 1)) / (known + 1))


def cusum_alarms(z: Floats, height: Floats) -> NDArray[np.bool_]:
    """Windows at which the sum passes its threshold, ``(paths, windows)``; it starts again after each alarm."""
    alarms = np.zeros(z.shape, dtype=bool)
    total = np.zeros(len(z))
    for k in range(z.shape[1]):
        total = np.maximum(0.0, total + z[:, k] - REFERENCE_VALUE)
        alarms[:, k] = total > height
        total[alarms[:, k]] = 0.0
    return alarms


def psi(reference: NDArray[np.int64], windows: NDArray[np.int64]) -> Floats:
    """PSI with ½ added to each bin: counts ``(..., bins)`` against ``(..., bins)``, broadcast."""
    bins = windows.shape[-1]
    r = (reference + 0.5) / (reference.sum(axis=-1, keepdims=True) + 0.5 * bins)
    c = (windows + 0.5) / (windows.sum(axis=-1, keepdims=True) + 0.5 * bins)
    return ((c - r) * np.log(c / r)).sum(axis=-1)


def scored(blocks: NDArray[np.int64], windows: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Scores of the reference's blocks leave-block-out, and of the windows: PSI/(1/n + 1/m) as in the operator.

    Args: counts ``(paths, blocks, bins)`` and ``(paths, windows, bins)``.
    """
    total = blocks.sum(axis=1, keepdims=True)
    return _scaled(total - blocks, blocks), _scaled(total, windows)


def _scaled(reference: NDArray[np.int64], windows: NDArray[np.int64]) -> Floats:
    size = 1.0 / reference.sum(axis=-1) + 1.0 / windows.sum(axis=-1)
    return psi(reference, windows) / size
