"""How soon the loss against the previous version alarms, and how often without cause: the operator's own e-detector."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from fiduciary.evidence.edetector import EDetector

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIFTS = (0.3, 0.5, 1.0, 2.0)
BEFORE, LONGEST = 100, 1500


def delays(paths: int, sessions: float, seed: int) -> list[dict[str, object]]:
    """Median sessions to the alarm where the loss rises by so many sd of the session's difference.

    Args: sessions: configured run time in sessions.
    """
    rows: list[dict[str, object]] = []
    for shift in SHIFTS:
        found: list[int] = []
        for path in range(paths):
            rng = np.random.default_rng([seed, round(10 * shift), path])
            values = np.concatenate([rng.normal(size=BEFORE), shift + rng.normal(size=LONGEST)])
            alarm = next((k for k, log in _played(values) if k >= BEFORE and log >= math.log(sessions)), None)
            found.append(LONGEST if alarm is None else alarm - BEFORE + 1)
        rows.append({"worse by, sd": shift, "median sessions": median(found), "longest": max(found)})
    return rows


def false_alarms(paths: int, sessions: float, seed: int) -> float:
    """Mean sessions between alarms over the configured number, Student t₄ differences without a mean."""
    total, alarms = 0, 0
    for path in range(paths):
        state = EDetector()
        for value in np.random.default_rng([seed, path]).standard_t(4, size=6 * int(sessions)):
            state = _folded(state, float(value))
            total += 1
            if state.log_e is not None and state.log_e >= math.log(sessions):
                alarms += 1
                state = state.reset()
    return total / max(1, alarms) / sessions


def _played(values: np.ndarray) -> Iterator[tuple[int, float]]:
    state = EDetector()
    for k, value in enumerate(values.tolist()):
        state = _folded(state, value)
        yield k, -math.inf if state.log_e is None else state.log_e


def _folded(state: EDetector, value: float) -> EDetector:
    after = state.fold(state.last + 1, value)
    assert isinstance(after, EDetector), after
    return after
