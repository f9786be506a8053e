"""Permutation importance: how much worse the walk-forward's own models predict when one feature's days are shuffled.

Source: Breiman (2001), Machine Learning 45, on out-of-sample rows. Days are shuffled within each fold, all entities of
a day together, so that a feature keeps its distribution and loses its time. Features that say the same share their
importance: each alone looks small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure.losses import squared_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.models.fitting import Fitted, Fitter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
REPEATS = 3


def of_fold(fitter: Fitter, fitted: Fitted, rows: Ints, seed: Sequence[int]) -> Floats:
    """``(REPEATS, F)``: mean squared error added by shuffling each feature of the test rows ``rows``."""
    prepared = fitter.prepared
    loss = float(np.mean(squared_error(prepared.y[rows], fitter.predict(fitted, rows))))
    added = np.zeros((REPEATS, prepared.features.shape[1]))
    days, place = np.unique(prepared.dates[rows], return_inverse=True)
    for repeat in range(REPEATS):
        rng = np.random.default_rng([*seed, repeat])
        order = rng.permutation(len(days))
        donor = _donors(place, order)
        for feature in range(added.shape[1]):
            worse = fitter.predict(fitted, rows, shuffled=(feature, rows[donor]))
            added[repeat, feature] = float(np.mean(squared_error(prepared.y[rows], worse))) - loss
    return added


def _donors(place: NDArray[np.integer], order: NDArray[np.integer]) -> Ints:
    """For each row a row of the day that its own was exchanged for; where that day has fewer rows, they repeat."""
    rows_of: Sequence[Ints] = np.split(
        np.argsort(place, kind="stable"), np.cumsum(np.bincount(place, minlength=len(order)))[:-1]
    )
    donor = np.empty(len(place), dtype=np.int64)
    for day, own in enumerate(rows_of):
        other = rows_of[int(order[day])]
        donor[own] = other[np.arange(len(own)) % len(other)]
    return donor
