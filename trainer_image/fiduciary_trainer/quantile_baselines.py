"""Quantiles that a model's must beat: those that a desk computes without any network.

``residual``: a simple forecast plus the quantiles of its errors on the training rows, each entity's own where it has
enough of them. ``filtered``: the same with errors in units of their own current size, an exponentially weighted mean of
those known so far: filtered historical simulation (Hull & White 1998, J. Risk 1(1); Barone-Adesi, Giannopoulos &
Vosper 1999, J. Futures Markets 19(5)) with the filter of RiskMetrics (1996), its constant tuned on the training rows.
The simple forecast is HAR for a volatility and the training mean for a return; errors of a log volatility are ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from fiduciary_trainer.measure.losses import pinball
from fiduciary_trainer.models.ridge import ridge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_features import LabelKind
    from fiduciary_trainer.prepared import Prepared

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DECAYS = (0.9, 0.94, 0.97, 0.985, 0.995)
"""Weight of what was known before, by session; .94 is RiskMetrics' for daily returns."""
ENOUGH = 250
"""Training rows from which an entity's errors are looked at by themselves; with fewer, those of all count."""


def fit_predict(
    prepared: Prepared, label: LabelKind, levels: Sequence[float], train: Ints, test: Ints
) -> Mapping[str, Floats]:
    """``(n, K)`` of ``test`` by each baseline, fitted on ``train``.

    Args:
        prepared: the rows; outcomes of earlier test rows are used from the session on in which they are known.
        label: Volatility or Return.
        levels: K, ascending.
        train, test: row indices.
    """
    centre = _centre(prepared, label, train)
    error = prepared.y - centre
    taus = np.array(levels)
    plain = _quantiles(prepared, error, taus, train)
    candidates = [_sizes(prepared, error, decay, train) for decay in DECAYS]
    filtered = [size[:, None] * _quantiles(prepared, error / size, taus, train) for size in candidates]
    losses = [float(np.mean(pinball(error[train], each[train], taus))) for each in filtered]
    best = filtered[int(np.argmin(losses))]
    return {name: centre[test, None] + each[test] for name, each in (("residual", plain), ("filtered", best))}


def _centre(prepared: Prepared, label: LabelKind, train: Ints) -> Floats:
    y = prepared.y[train]
    if label == "Volatility":
        return ridge(prepared.terms[train], y, 0.0).score(prepared.terms)
    return np.full(len(prepared.y), y.mean())


def _quantiles(prepared: Prepared, error: Floats, levels: Floats, train: Ints) -> Floats:
    """``(T, K)`` quantiles of the training errors of each row's entity, or of all entities."""
    result = np.empty((len(error), len(levels)))
    result[:] = np.quantile(error[train], levels)
    for rows in _each_entity(prepared):
        own = np.intersect1d(rows, train)
        if len(own) >= ENOUGH:
            result[rows] = np.quantile(error[own], levels)
    return result


def _sizes(prepared: Prepared, error: Floats, decay: float, train: Ints) -> Floats:
    """``(T,)`` root of the exponentially weighted mean square of the entity's errors that are known at each row."""
    squared = error * error
    everywhere = float(np.mean(squared[train]))
    size = np.empty(len(error))
    for rows in _each_entity(prepared):
        own = np.intersect1d(rows, train)
        first = float(np.mean(squared[own])) if len(own) >= ENOUGH else everywhere
        smoothed = lfilter([1.0 - decay], [1.0, -decay], squared[rows], zi=[decay * first])[0]
        known = np.searchsorted(prepared.label_end[rows], prepared.dates[rows], side="right")
        size[rows] = np.concatenate([[first], smoothed])[known]
    return np.sqrt(np.maximum(size, np.finfo(float).tiny))


def _each_entity(prepared: Prepared) -> list[Ints]:
    return [np.flatnonzero(prepared.entity == name) for name in np.unique(prepared.entity)]
