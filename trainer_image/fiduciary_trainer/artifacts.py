"""The files of a version, made from the final model and the walk-forward."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_features import FeatureSpec, Transform, signature
from fiduciary_trainer import export, version
from fiduciary_trainer.drift_reference import Reference, drift_reference
from fiduciary_trainer.forecast_reference import Forecasts
from fiduciary_trainer.ledger import ledger
from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.outcome import encode

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fiduciary_features import Bars
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.walkforward import FinalModel

_BATCH = 4096
REPLAYED = 16
"""Newest rows of an entity that the written version answers from raw data, as the server will."""
REPLAYED_ENTITIES = 16


@dataclass(frozen=True)
class Built:
    """A version on disk, and how far what is written there is from what was trained."""

    digest: str
    probe: export.Probe


def build(folder: Path, contract: Contract, bars: Bars, rows: Rows, model: FinalModel) -> Built:
    """Export the model and write the version's folder.

    Args:
        folder: is created.
        contract: the job.
        bars: all rows up to asOf.
        rows: out-of-sample rows of the walk-forward.
        model: refitted on all rows.
    """
    features = model.features
    width = len(features.names)
    shape = (width,) if model.input_kind == "row" else (model.window, width)
    onnx = export.to_onnx(model.module, shape, model.quantiles)
    data = contract.data
    window = None if model.input_kind == "row" else model.window
    files = {
        "model.onnx": onnx,
        "features.json": encode({**features.to_json(), "transform": model.transform.to_json()}),
        "signature.json": encode(
            signature(features, data.label, data.column, data.horizon, window, contract.training.quantiles)
        ),
        "procedure.json": encode(version.procedure(contract.document)),
        "ledger.csv": ledger(rows, str(contract.document["configKey"])),
        "drift_reference.json": drift_reference(
            _reference(bars, model, onnx),
            rows.days,
            rows.daily(squared_error(rows.y, rows.prediction)),
            Forecasts(rows.day_index, rows.y, rows.prediction, probabilities=data.label == "Direction"),
        ),
    }
    digest = version.build(folder, files)
    probe = export.probe(onnx, model.module, model.examples, quantiles=model.quantiles)
    return Built(digest, export.Probe(max(probe.max_diff, replay(folder, bars, model)), probe.rows))


def replay(folder: Path, bars: Bars, model: FinalModel) -> float:
    """Largest difference between the written version, asked as the server asks it, and the trained module.

    The version is read back from its files alone: definitions and transform of ``features.json``, ``signature.json``
    for how many raw rows a prediction gets, ``model.onnx``. The trained module is fed with the trainer's own features
    and transform. A transform that is fitted and not written, features of mixed instruments or a lookback that is too
    short show here, and nowhere in a comparison of two networks on the same inputs.
    """
    document = json.loads((folder / "features.json").read_bytes())
    features, transform = FeatureSpec.from_json(document), Transform.from_json(document["transform"])
    asked = json.loads((folder / "signature.json").read_bytes())
    shape, rows = asked["inputs"][0]["shape"], int(asked["raw"]["rows"])
    window = int(shape[1]) if len(shape) == 3 else 1
    predictor = export.Predictor((folder / "model.onnx").read_bytes())
    trained = model.transform.apply(model.features.compute(bars))
    worst = 0.0
    for own in _entities(bars):
        for last in range(max(len(own) - REPLAYED, rows - 1), len(own)):
            part = own[last - rows + 1 : last + 1]
            raw = features.of_series({name: bars.column(name)[part] for name in features.columns})[-window:]
            expected = trained[own[last - window + 1 : last + 1]]
            if not np.all(np.isfinite(expected)):
                continue  # the trainer itself has no features here, and the server refuses such a request
            if not np.all(np.isfinite(raw)):
                return float("inf")
            served, known = transform.apply(raw).astype(np.float32), expected.astype(np.float32)
            if len(shape) == 2:
                served, known = served[-1], known[-1]
            answer = export.evaluate(model.module, known[None])
            worst = max(worst, export.difference(predictor(served[None]), answer))
            if model.quantiles is not None:
                answer = export.evaluate(model.quantiles, known[None])
                worst = max(worst, export.difference(predictor.quantiles(served[None])[0], answer))
    return worst


def _entities(bars: Bars) -> list[NDArray[np.int64]]:
    """Rows of up to :data:`REPLAYED_ENTITIES` entities, by name, in order of time."""
    names = np.unique(bars.entity)
    chosen = names[np.unique(np.linspace(0, len(names) - 1, min(REPLAYED_ENTITIES, len(names))).astype(np.int64))]
    return [np.flatnonzero(bars.entity == name) for name in chosen]


def _reference(bars: Bars, model: FinalModel, onnx: bytes) -> Reference:
    """Features and forecasts of every row whose lookback is filled, as serving would compute them."""
    raw = model.features.compute(bars)
    inputs = model.transform.apply(raw)
    filled = np.zeros(len(bars), dtype=bool)
    prediction = np.full(len(bars), np.nan)
    for own in bars.each_entity():
        filled[own[model.features.lookback - 1 :]] = True
        prediction[own] = _predict(onnx, inputs[own], model)
    return Reference(
        dates=bars.time[filled],
        entity=bars.entity[filled],
        names=model.features.names,
        memory=[feature.memory for feature in model.features.features],
        raw=raw[filled],
        inputs=inputs[filled],
        prediction=prediction[filled],
    )


def _predict(onnx: bytes, inputs: NDArray[np.float64], model: FinalModel) -> NDArray[np.float64]:
    """Forecast of each row of one entity; NaN where the row or, with a window, one before it is incomplete."""
    result = np.full(len(inputs), np.nan)
    if model.input_kind == "row":
        views, first = inputs[:, None, :], 0
    elif len(inputs) >= model.window:
        views = np.lib.stride_tricks.sliding_window_view(inputs, model.window, axis=0).transpose(0, 2, 1)
        first = model.window - 1
    else:
        return result
    ready = np.flatnonzero(np.all(np.isfinite(views), axis=(1, 2)))
    predictor = export.Predictor(onnx)
    for start in range(0, len(ready), _BATCH):
        chosen = ready[start : start + _BATCH]
        batch = views[chosen].astype(np.float32)
        result[chosen + first] = predictor(batch[:, 0] if model.input_kind == "row" else batch)
    return result
