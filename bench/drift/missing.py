"""How soon the monitor of missing rows alarms: the operator's own limit on simulated windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fiduciary.decide.drift.fold import fold_missing
from fiduciary.decide.drift.state import FeatureCounts, Limit, Reading
from fiduciary.decide.drift.windows import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray


def missing_alarms(
    rate: float, *, usual: float, rows: int, windows: int, paths: int, run_time: float, seed: int
) -> NDArray[np.bool_]:
    """Alarms ``(paths, windows)`` where a feature is missing in a share ``rate`` of the rows, ``usual`` in training."""
    draws = np.random.default_rng(seed).binomial(rows, rate, size=(paths, windows))
    seen = {gone: _alarms(gone, usual, rows, run_time) for gone in np.unique(draws).tolist()}
    return np.vectorize(seen.__getitem__, otypes=[bool])(draws)


def _alarms(gone: int, usual: float, rows: int, run_time: float) -> bool:
    window = Window(0, 0, rows, Reading(0, rows), (FeatureCounts("f", (rows - gone,), gone),))
    return fold_missing(Limit("gone"), window, 0.02, {"f": usual}, run_time, 1).alarm is not None
