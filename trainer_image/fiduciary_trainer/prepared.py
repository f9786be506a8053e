"""Rows that can be used: features, labels and what the baselines read, with the rest counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import Bars, FeatureSpec, labels
from fiduciary_features.definitions import HAR_TERMS
from fiduciary_features.series import Series
from fiduciary_trainer.outcome import DataRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_trainer.job import Contract

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Prepared:
    """T usable rows, sorted by (decision time, entity).

    Attributes:
        dates, label_end, entity, y, returns: see :class:`fiduciary_trainer.walkforward.WalkForward`.
        features: of every row that was read, ``(N, F)``.
        windows: ``(T, window)``, the rows of ``features`` that make each input, oldest first.
        terms: ``(T, 3)`` daily, weekly, monthly log volatility (Volatility), or ``(T, 1)`` the label of the horizon
            that has just ended: its direction, or its return.
        past: log volatility of each row that was read, ``(N, lags)``, newest first; None for other labels.
        counts: rows read, used, and left out by cause.
    """

    dates: Times
    label_end: Times
    entity: NDArray[np.str_]
    y: Floats
    returns: Floats
    features: Floats
    windows: Ints
    terms: Floats
    past: Floats | None
    counts: Mapping[str, int]

    @property
    def x(self) -> Floats:
        """``(T, F)`` raw features of each row itself."""
        return self.features[self.windows[:, -1]]


PAST = 66
"""Rows that a tuned EWMA adds up."""


def prepare(bars: Bars, contract: Contract) -> Prepared:
    """Compute features and labels and keep the rows where everything is known.

    Raises:
        DataRefused: no row is left.
    """
    data, spec = contract.data, contract.features
    features = spec.compute(bars)
    outcome = labels(bars, data.label, data.column, data.horizon)
    windows, position = _windows(bars, contract.window)
    past: Floats | None = None
    if data.label == "Volatility":
        terms = FeatureSpec.of_builtin("har", HAR_TERMS).compute(bars)
        past = _past(bars)
    else:
        terms = _last_outcome(bars, contract)

    filled = position >= contract.lookback - 1
    known = np.all(np.isfinite(features), axis=1)
    has_inputs = np.all(known[windows], axis=1) & np.all(np.isfinite(terms), axis=1)
    has_label = np.isfinite(outcome.y)
    used = np.flatnonzero(filled & has_inputs & has_label)
    counts = {
        "rows_read": len(bars),
        "rows_used": len(used),
        "dropped_lookback": int(np.sum(~filled)),
        "dropped_missing": int(np.sum(filled & ~has_inputs)),
        "dropped_no_label": int(np.sum(filled & has_inputs & ~has_label)),
        "lookback": contract.lookback,
    }
    if len(used) == 0:
        raise DataRefused(
            "TooFewRows",
            f"none of {len(bars)} rows has all features and a label: {counts['dropped_lookback']} lie before the "
            f"lookback of {contract.lookback} rows, {counts['dropped_missing']} miss a value, "
            f"{counts['dropped_no_label']} have no outcome; use a longer history or repair the data",
        )
    return Prepared(
        dates=bars.time[used],
        label_end=outcome.end[used],
        entity=bars.entity[used],
        y=outcome.y[used],
        returns=outcome.next_return[used],
        features=features,
        windows=windows[used],
        terms=terms[used],
        past=None if past is None else past[used],
        counts=counts,
    )


def _windows(bars: Bars, window: int) -> tuple[Ints, Ints]:
    """Rows of the same entity that end at each row, oldest first, and how many came before; short ones repeat row 0."""
    windows = np.zeros((len(bars), window), dtype=np.int64)
    position = np.zeros(len(bars), dtype=np.int64)
    back = np.arange(window - 1, -1, -1)
    for rows in bars.each_entity():
        place = np.arange(len(rows))
        windows[rows] = rows[np.maximum(place[:, None] - back[None, :], 0)]
        position[rows] = place
    return windows, position


def _past(bars: Bars) -> Floats:
    """``(N, PAST)`` log volatility of a row and those before it, newest first; NaN where there is none."""
    result = np.full((len(bars), PAST), np.nan)
    for rows in bars.each_entity():
        own = Series({name: values[rows] for name, values in bars.columns.items()}).log_volatility
        for back in range(min(PAST, len(rows))):
            result[rows[back:], back] = own[: len(rows) - back]
    return result


def _last_outcome(bars: Bars, contract: Contract) -> Floats:
    """``(N, 1)`` the label that ends at each row: what persistence predicts from."""
    data = contract.data
    outcome = labels(bars, data.label, data.column, data.horizon)
    result = np.full(len(bars), np.nan)
    for rows in bars.each_entity():
        result[rows[data.horizon :]] = outcome.y[rows[: -data.horizon]]
    return result[:, None]
