"""The files of a version, made from the final model and the walk-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_features import signature
from fiduciary_trainer import export, version
from fiduciary_trainer.drift_reference import Reference, drift_reference
from fiduciary_trainer.ledger import ledger
from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.outcome import encode

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fiduciary_features import Bars
    from fiduciary_trainer.contract import Contract
    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.walkforward import FinalModel

_BATCH = 4096


@dataclass(frozen=True)
class Built:
    """A version on disk, and how far its ONNX file is from torch."""

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
    onnx = export.to_onnx(model.module, shape)
    data = contract.data
    window = None if model.input_kind == "row" else model.window
    files = {
        "model.onnx": onnx,
        "features.json": encode({**features.to_json(), "transform": model.transform.to_json()}),
        "signature.json": encode(signature(features, data.label, data.column, data.horizon, window)),
        "procedure.json": encode(version.procedure(contract.document)),
        "ledger.csv": ledger(rows, str(contract.document["configKey"])),
        "drift_reference.json": drift_reference(
            _reference(bars, model, onnx), rows.days, rows.daily(squared_error(rows.y, rows.prediction))
        ),
    }
    return Built(version.build(folder, files), export.probe(onnx, model.module, model.examples))


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
