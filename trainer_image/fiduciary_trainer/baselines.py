"""Forecasts that a model must beat, each tuned on the same training rows as the model: an untuned one is a straw man.

On the S&P 500 an EWMA with the usual constant .06 loses 12 % to a tuned one, which equals HAR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.models.ridge import UNPENALISED, logistic, ridge, sigmoid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_features import LabelKind, Transform
    from fiduciary_trainer.prepared import Prepared

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONSTANTS = tuple(float(each) for each in np.round(np.arange(0.02, 0.605, 0.005), 3))
"""Smoothing constants that the EWMA is tuned over: weight of the newest session."""


def weights(constant: float, rows: int) -> Floats:
    """Weights of an EWMA over ``rows`` rows, newest first; they add up to 1."""
    result = (1.0 - constant) ** np.arange(rows)
    return result / result.sum()


def ewma(past: Floats, constant: float) -> Floats:
    """Smoothed log volatility of each row over what is known of its past.

    Args:
        past: ``(T, lags)`` newest first, NaN where there is none.
        constant: weight of the newest session.
    """
    share = weights(constant, past.shape[1])
    known = np.isfinite(past)
    return np.where(known, past, 0.0) @ share / (known @ share)


def tuned_constant(past: Floats, y: Floats) -> float:
    """The constant with the smallest mean squared error."""
    errors = [float(np.mean((ewma(past, constant) - y) ** 2)) for constant in CONSTANTS]
    return CONSTANTS[int(np.argmin(errors))]


def fit_predict(
    prepared: Prepared, label: LabelKind, transform: Transform, train: Ints, test: Ints
) -> Mapping[str, Floats]:
    """Fit every baseline of the label on ``train`` and predict ``test``.

    Args:
        prepared: the rows.
        label: which baselines: see :class:`fiduciary_trainer.walkforward.WalkForward`.
        transform: fitted on ``train``; the regression on the model's own features reads what the model reads.
        train, test: row indices.
    """
    y = prepared.y[train]
    own = transform.apply(prepared.x)
    terms = prepared.terms
    if label == "Volatility":
        assert prepared.past is not None
        constant = tuned_constant(prepared.past[train], y)
        return {
            "ewma": ewma(prepared.past[test], constant),
            "har": ridge(terms[train], y, 0.0).score(terms[test]),
            "ols": ridge(own[train], y, 0.0).score(own[test]),
            "persistence": terms[test, 0],
        }
    if label == "Direction":
        return {
            "base_rate": np.full(len(test), y.mean()),
            "persistence": _after_same(terms[train, 0], y, terms[test, 0]),
            "ols": sigmoid(logistic(own[train], y, UNPENALISED).score(own[test])),
        }
    return {
        "mean": np.full(len(test), y.mean()),
        "persistence": ridge(terms[train], y, 0.0).score(terms[test]),
        "ols": ridge(own[train], y, 0.0).score(own[test]),
    }


def _after_same(last: Floats, y: Floats, now: Floats) -> Floats:
    """How often it rose in training after a move like the last one: persistence as a probability."""
    result = np.full(len(now), y.mean())
    for direction in (0.0, 1.0):
        if bool(np.any(last == direction)):
            result[now == direction] = y[last == direction].mean()
    return result
