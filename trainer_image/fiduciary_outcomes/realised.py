"""What one version's forecasts cost in one session, by itself: loss, and whether what was called likely happened.

Pairs are made for comparisons; a loss that is held against the walk-forward's must not leave out what only one of two
versions predicted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.document import shortest
from fiduciary_outcomes.session import qlike, rank_losses, squared_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_outcomes.definition import LabelKind
    from fiduciary_outcomes.session import Outcome, Prediction, Unit

CLASSES = 10
"""Bins of predicted probabilities, of equal width: as the trainer's reference has them."""


def realised(
    label: LabelKind, predictions: Mapping[Unit, Prediction], outcomes: Mapping[Unit, Outcome]
) -> dict[str, Any]:
    """``own`` of one arm in a row of a watched version: every unit that it predicted before its outcome was there.

    ``calibration`` (Direction): [bin, units, sum of the predicted probabilities, events] of each bin that has any.
    """
    units = sorted(
        unit for unit, its in predictions.items() if unit in outcomes and its.arrived < outcomes[unit].arrived
    )
    forecasts = [predictions[unit].value for unit in units]
    happened = [outcomes[unit].value for unit in units]
    losses = rank_losses(forecasts, happened) if label == "Return" else list(map(squared_error, happened, forecasts))
    found: dict[str, Any] = {"entities": len(losses), "loss": shortest(math.fsum(losses))}
    if label == "Volatility":
        found["qlike"] = shortest(math.fsum(map(qlike, happened, forecasts)))
    if label == "Direction":
        found["calibration"] = _calibration(forecasts, happened)
    return found


def _calibration(forecasts: Sequence[float], happened: Sequence[float]) -> list[list[Any]]:
    """Bin k holds k/10 <= p < (k + 1)/10, the last one 1 too; what is no probability counts as the nearest one."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for forecast, event in zip(forecasts, happened, strict=True):
        probability = min(max(forecast, 0.0), 1.0)
        bins.setdefault(min(int(probability * CLASSES), CLASSES - 1), []).append((probability, event))
    return [
        [number, len(its), shortest(math.fsum(p for p, _ in its)), sum(event > 0.5 for _, event in its)]
        for number, its in sorted(bins.items())
    ]
