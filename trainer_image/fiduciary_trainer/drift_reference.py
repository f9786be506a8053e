"""What the inputs and forecasts looked like in training, small enough to travel with the version.

The operator compares serving windows with it, and calibrates itself on it without raw data: histograms are stored
per *base block* of a few dates, and merged to whatever window a DriftPolicy asks for later. Schema, version 1::

    schemaVersion   1
    rows            rows counted (entity, date); entities; from, through: first and last date
    block           {dates: dates in a base block, count: blocks, through: [last date of each block]}
    features        {name: {edges, counts, min, max, memory, missing: {rate, blocks: {index: rows}}}}
    prediction      {edges, counts, min, max}                       of the exported model, in the unit of the label
    joint           {kind: mahalanobis, center, whiten, edges, counts} | {unavailable: reason}
    loss            {unit: squared error, mean, sd, dates, blocks: [mean of each block of the walk-forward],
                     byPrediction, calibration}                     see fiduciary_trainer.forecast_reference
    edgesSha256     hash of all edges; histograms over other edges are never compared

``edges`` are inner bin edges, ascending: bin i holds ``edges[i-1] < x <= edges[i]`` (Prometheus' ``le``), the first
and the last bin are open. They are deciles of the reference; equal ones (atoms) are merged, so there may be fewer.
``counts[b][i]`` are rows of block b in bin i; values that are not finite are in no bin. Blocks are aligned at the end
of the reference, its oldest dates that fill no block are left out. ``memory`` is the number of rows that the feature
averages over. ``joint``: distance ``|whiten (z - center)|`` of the transformed features z (the model's inputs).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.forecast_reference import Forecasts, by_prediction, calibration
from fiduciary_trainer.ledger import iso
from fiduciary_trainer.outcome import encode, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dates = NDArray[np.datetime64]

BINS = 10
BLOCK_DATES = (7, 21, 63, 252)
"""Sizes of a base block to choose from: each divides the next, and they are parts of a month, a quarter and a year."""

MOST_CELLS = 1_000_000
"""Histogram cells in the whole document, about 2.5 MB of JSON; longer or wider references get larger blocks."""

WIDEST_JOINT = 128
"""Features up to which the joint distance is kept: its matrix grows with the square."""


@dataclass(frozen=True)
class Reference:
    """Rows that the final model was fitted on, sorted by date.

    Attributes:
        dates, entity: of each row, shape ``(n,)``.
        names, memory: of the features; memory in rows.
        raw: features before transforms, shape ``(n, k)``, NaN where missing.
        inputs: the same after transforms, NaN where a raw feature of the row is missing.
        prediction: of the final model, NaN where it cannot predict.
    """

    dates: Dates
    entity: NDArray[np.str_]
    names: Sequence[str]
    memory: Sequence[int]
    raw: Floats
    inputs: Floats
    prediction: Floats


def drift_reference(reference: Reference, loss_dates: Dates, daily_loss: Floats, forecasts: Forecasts) -> bytes:
    """The document as canonical JSON; see the module's text.

    Args:
        reference: rows of the final fit.
        loss_dates: out-of-sample days of the walk-forward, ascending.
        daily_loss: squared error of each, mean over entities.
        forecasts: the rows that it is of.
    """
    days, day_index = np.unique(reference.dates, return_inverse=True)
    block_dates = _block_dates(len(days), reference.raw.shape[1])
    blocks = _Blocks(block_dates, len(days), np.asarray(day_index, dtype=np.int64))
    features = {
        name: _histogram(reference.raw[:, column], blocks)
        | {"memory": int(reference.memory[column]), "missing": _missing(reference.raw[:, column], blocks)}
        for column, name in enumerate(reference.names)
    }
    prediction = _histogram(reference.prediction, blocks)
    joint = _joint(reference.inputs, blocks)
    edges = {
        "features": {name: entry["edges"] for name, entry in features.items()},
        "prediction": prediction["edges"],
        "joint": joint.get("edges"),
    }
    loss_blocks = _Blocks(block_dates, len(loss_dates), np.arange(len(loss_dates), dtype=np.int64))
    document: dict[str, Any] = {
        "schemaVersion": 1,
        "rows": len(reference.dates),
        "entities": len(np.unique(reference.entity)),
        "from": iso(days[0]),
        "through": iso(days[-1]),
        "block": {
            "dates": block_dates,
            "count": blocks.count,
            "through": [iso(day) for day in blocks.last_days(days)],
        },
        "features": features,
        "prediction": prediction,
        "joint": joint,
        "loss": {
            "unit": "squared error",
            "mean": significant(float(daily_loss.mean())),
            "sd": significant(float(daily_loss.std())),
            "dates": block_dates,
            "blocks": significant(loss_blocks.means(daily_loss)),
            "byPrediction": by_prediction(
                forecasts, bin_index(np.array(prediction["edges"]), forecasts.prediction), len(prediction["edges"]) + 1
            ),
            "calibration": calibration(forecasts, loss_blocks.of_row, loss_blocks.count),
        },
        "edgesSha256": hashlib.sha256(encode(edges)).hexdigest(),
    }
    return encode(document)


def bin_index(edges: Floats, values: Floats) -> Ints:
    """Number of the bin of each value, 0 to ``len(edges)``: the first edge that is not below the value."""
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _block_dates(days: int, features: int) -> int:
    for size in BLOCK_DATES:
        if (days // size) * (features + 2) * BINS <= MOST_CELLS:
            return size
    return BLOCK_DATES[-1]


class _Blocks:
    """Which base block each row belongs to; -1 for the oldest rows that fill none."""

    def __init__(self, dates: int, days: int, day_index: Ints) -> None:
        # A reference shorter than one block is one block.
        self.size = min(dates, days)
        self.count = days // self.size
        self.skipped = days - self.count * self.size
        self.of_row = np.where(day_index >= self.skipped, (day_index - self.skipped) // self.size, -1)

    def last_days(self, days: Dates) -> Dates:
        return days[self.skipped + self.size - 1 :: self.size]

    def counts(self, bins: Ints, width: int, chosen: NDArray[np.bool_]) -> list[list[int]]:
        kept = chosen & (self.of_row >= 0)
        flat = np.bincount(self.of_row[kept] * width + bins[kept], minlength=self.count * width)
        return flat.reshape(self.count, width).tolist()

    def means(self, values: Floats) -> list[float]:
        return values[self.skipped :].reshape(self.count, self.size).mean(axis=1).tolist()


def _histogram(values: Floats, blocks: _Blocks) -> dict[str, Any]:
    finite = np.isfinite(values)
    known = values[finite]
    if not len(known):
        return {"edges": [], "counts": [[0]] * blocks.count, "min": None, "max": None}
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
    counts = blocks.counts(bin_index(edges, values), len(edges) + 1, finite)
    return {"edges": edges.tolist(), "counts": counts, "min": float(known.min()), "max": float(known.max())}


def _missing(values: Floats, blocks: _Blocks) -> dict[str, Any]:
    missing = ~np.isfinite(values)
    kept = blocks.of_row[missing & (blocks.of_row >= 0)]
    index, rows = np.unique(kept, return_counts=True)
    sparse = {str(int(block)): int(count) for block, count in zip(index, rows, strict=True)}
    return {"rate": significant(float(missing.mean())), "blocks": sparse}


def _joint(inputs: Floats, blocks: _Blocks) -> dict[str, Any]:
    """Mahalanobis distance from the mean of the inputs; directions that hardly vary are left out of it.

    Collinear features (a mean over 22 days and its parts) would otherwise make noise of rounding error dominate.
    """
    if inputs.shape[1] > WIDEST_JOINT:
        return {"unavailable": f"{inputs.shape[1]} features; the joint distance is kept up to {WIDEST_JOINT}"}
    whole = np.all(np.isfinite(inputs), axis=1)
    if int(whole.sum()) <= inputs.shape[1] + 1:
        return {"unavailable": f"{int(whole.sum())} complete rows for {inputs.shape[1]} features"}
    center = inputs[whole].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(inputs[whole], rowvar=False).reshape(inputs.shape[1], -1))
    kept = values > 1e-6 * values.max()
    if not np.any(kept) or values.max() <= 0.0:
        return {"unavailable": "the inputs do not vary"}
    # The sign of an eigenvector is arbitrary; fixing it keeps the bytes a function of the data.
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
    whiten = ((vectors * signs)[:, kept] / np.sqrt(values[kept])).T
    rounded_center = np.array(significant(center.tolist(), 9))
    rounded_whiten = np.array(significant(whiten.tolist(), 9))
    distance = np.full(len(inputs), np.nan)
    distance[whole] = np.linalg.norm((inputs[whole] - rounded_center) @ rounded_whiten.T, axis=1)
    return {
        "kind": "mahalanobis",
        "center": rounded_center.tolist(),
        "whiten": rounded_whiten.tolist(),
        **_histogram(distance, blocks),
    }
