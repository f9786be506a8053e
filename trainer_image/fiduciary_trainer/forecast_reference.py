"""What the walk-forward's forecasts were worth, for the drift reference: by how they were, and how honest.

Schema, inside ``loss`` of :mod:`fiduciary_trainer.drift_reference`::

    byPrediction    {rows: [of each bin of the prediction's edges], mean: [their mean squared error, null without rows]}
    calibration     null | {bins: 10, blocks: [[[bin, rows, sum of the probabilities, events], ...] of each block]}

Bin k of ``calibration`` holds forecasts k/10 <= p < (k + 1)/10, the last one 1 too, as the outcome scorer counts them;
it is null where the label is no event. Blocks are those of ``loss``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_trainer.outcome import significant

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 10
DIGITS = 9


@dataclass(frozen=True)
class Forecasts:
    """Out-of-sample rows of the walk-forward.

    Attributes:
        day: position of each row's date among the out-of-sample days, shape ``(n,)``.
        outcome, prediction: in the unit of the label.
        probabilities: the label is an event, and the prediction its probability.
    """

    day: NDArray[np.int64]
    outcome: NDArray[np.float64]
    prediction: NDArray[np.float64]
    probabilities: bool


def by_prediction(forecasts: Forecasts, bins: NDArray[np.int64], width: int) -> dict[str, Any]:
    """Rows and mean squared error of the walk-forward in each bin of the prediction. ``bins``: of each row."""
    errors = (forecasts.outcome - forecasts.prediction) ** 2
    known = np.isfinite(errors)
    rows = np.bincount(bins[known], minlength=width)
    sums = np.bincount(bins[known], weights=errors[known], minlength=width)
    means = [significant(float(total / count)) if count else None for total, count in zip(sums, rows, strict=True)]
    return {"rows": rows.tolist(), "mean": means}


def calibration(forecasts: Forecasts, block_of_day: NDArray[np.int64], count: int) -> dict[str, Any] | None:
    """Predicted probabilities beside what happened, by block and bin; ``block_of_day`` is -1 for days in no block."""
    if not forecasts.probabilities:
        return None
    known = np.isfinite(forecasts.prediction) & np.isfinite(forecasts.outcome)
    block = block_of_day[forecasts.day]
    kept = known & (block >= 0)
    probability = np.clip(forecasts.prediction[kept], 0.0, 1.0)
    bins = np.minimum((probability * CLASSES).astype(np.int64), CLASSES - 1)
    flat, size = block[kept] * CLASSES + bins, count * CLASSES
    rows = np.bincount(flat, minlength=size)
    predicted = np.bincount(flat, weights=probability, minlength=size)
    events = np.bincount(flat[forecasts.outcome[kept] > 0.5], minlength=size)
    return {
        "bins": CLASSES,
        "blocks": [
            [
                [number, int(rows[place]), significant(float(predicted[place]), DIGITS), int(events[place])]
                for number in range(CLASSES)
                if rows[place := index * CLASSES + number]
            ]
            for index in range(count)
        ],
    }
