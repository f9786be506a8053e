"""The usual drift rules, each window by itself against the whole reference.

Evidently's defaults are written from its documentation ("Data drift algorithm": numerical columns, reference of up to
1,000 rows: two-sample Kolmogorov–Smirnov, p < .05; more rows: Wasserstein distance over the reference's standard
deviation, .1); thresholds .1/.2/.25 of PSI are the credit industry's; ADWIN is river's own code, if it is installed.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.drift.detectors import psi

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NAMES = ("psi_10", "psi_20", "psi_25", "chi2_p05", "ks_p05", "wasserstein_10", "adwin")
TITLES = {
    "fiduciary": "Fiduciary",
    "psi_10": "PSI > .1",
    "psi_20": "PSI > .2",
    "psi_25": "PSI > .25",
    "chi2_p05": "χ² p < .05",
    "ks_p05": "Evidently ≤ 1,000 rows: KS p < .05",
    "wasserstein_10": "Evidently > 1,000 rows: Wasserstein/sd ≥ .1",
    "adwin": "river ADWIN",
}


def by_counts(total: NDArray[np.int64], windows: NDArray[np.int64]) -> dict[str, Flags]:
    """Rules on counts: ``(bins,)`` and ``(windows, bins)``."""
    distance = psi(total, windows)
    n, m = windows.sum(axis=1, keepdims=True), total.sum()
    pooled = (windows + total) / (n + m)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(pooled > 0, (windows - n * pooled) ** 2 / (n * pooled), 0.0)
        other = np.where(pooled > 0, (total - m * pooled) ** 2 / (m * pooled), 0.0)
    chi_square = (one + other).sum(axis=1)
    return {
        "psi_10": distance > 0.1,
        "psi_20": distance > 0.2,
        "psi_25": distance > 0.25,
        "chi2_p05": stats.chi2.sf(chi_square, windows.shape[1] - 1) < 0.05,
    }


def by_rows(reference: Floats, windows: Floats) -> dict[str, Flags]:
    """Rules on rows: the reference's, and ``(windows, rows)``."""
    ordered = np.sort(windows, axis=1)
    known = np.sort(reference)
    rows = ordered.shape[1]
    below = np.searchsorted(known, ordered, side="right") / len(known)
    upper, lower = np.arange(1, rows + 1) / rows, np.arange(rows) / rows
    d = np.maximum(np.abs(upper - below).max(axis=1), np.abs(below - lower).max(axis=1))
    size = np.sqrt(rows * len(known) / (rows + len(known)))
    quantiles = np.quantile(known, (np.arange(rows) + 0.5) / rows)
    return {
        "ks_p05": stats.kstwobign.sf(size * d) < 0.05,
        "wasserstein_10": np.abs(ordered - quantiles).mean(axis=1) >= 0.1 * reference.std(),
    }


def adwin(reference: Floats, windows: Floats) -> Flags | None:
    """Windows in which river's ADWIN (δ = .002, its default) sees a change; it has read the reference before."""
    try:
        drift: Any = importlib.import_module("river.drift")
    except ImportError:
        return None
    detector = drift.ADWIN()
    for value in reference.tolist():
        detector.update(value)
    found = np.zeros(len(windows), dtype=bool)
    for k, window in enumerate(windows.tolist()):
        for value in window:
            detector.update(value)
            if detector.drift_detected:
                found[k] = True
    return found
