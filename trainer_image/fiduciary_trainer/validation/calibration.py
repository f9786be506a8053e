"""Would recalibration help? Platt's scaling, fitted on earlier folds only, judged on the next.

A probability may order days well and be too bold; a logistic regression of the outcome on the forecast's log odds puts
that right (Platt 1999). Fitted on the days that it is judged on, it always helps, and says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure.losses import PROBABILITY_FLOOR, expected_calibration_error, log_loss, reliability
from fiduciary_trainer.models.ridge import UNPENALISED, logistic, sigmoid

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]


def recalibrated(rows: Rows) -> Floats:
    """Probabilities after scaling; each fold's scale is fitted on the folds before it whose labels were known when it
    began. NaN in the first fold, which has none."""
    odds = np.clip(rows.prediction, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    odds = np.log(odds) - np.log1p(-odds)
    result = np.full(len(odds), np.nan)
    for fold in rows.folds[1:]:
        test = rows.fold == fold
        known = (rows.fold < fold) & (rows.label_end <= rows.dates[test].min())
        classes = rows.y[known]
        if len(classes) == 0 or np.ptp(classes) == 0.0 or np.ptp(odds[known]) == 0.0:
            continue
        centre, scale = float(odds[known].mean()), float(odds[known].std())
        fitted = logistic((odds[known, None] - centre) / scale, classes, UNPENALISED)
        result[test] = sigmoid(fitted.score((odds[test, None] - centre) / scale))
    return result


def summary(rows: Rows) -> dict[str, Any]:
    """Calibration before and after, on the same days, and the reliability table of both."""
    after = recalibrated(rows)
    judged = np.isfinite(after)
    if not judged.any():
        return {"unavailable": "no fold has an earlier one with both classes and varying forecasts"}
    y, before, after = rows.y[judged], rows.prediction[judged], after[judged]

    def of(probability: Floats) -> dict[str, Any]:
        forecast, observed, counts = reliability(y, probability)
        return {
            "ece": expected_calibration_error(y, probability),
            "brier": float(np.mean((y - probability) ** 2)),
            "logLoss": float(np.mean(log_loss(y, probability))),
            "bins": [
                {"forecast": float(f), "observed": float(o), "rows": int(n)}
                for f, o, n in zip(forecast, observed, counts, strict=True)
                if n
            ],
        }

    return {
        "method": "Platt, fitted on earlier folds",
        "rows": int(judged.sum()),
        "before": of(before),
        "after": of(after),
    }
