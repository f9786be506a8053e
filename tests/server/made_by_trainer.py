"""Run inside the trainer's image: real versions for the server's tests, and what the trainer computes from the bars.

``python made_by_trainer.py FOLDER`` fills FOLDER with one folder a version (named as in ``VERSIONS``), with
``bars.npz`` (columns of the real data) and ``NAME.npz`` per version: ``features`` of the whole history, ``rows``
(numbers of bars) and the ``prediction`` that the trainer's own code makes for each (and its ``quantiles``).
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fiduciary_features import FeatureSpec, Transform, artifact
from fiduciary_trainer import contract as contracts
from fiduciary_trainer import data, export, pipeline, version
from fiduciary_trainer.data import Locations
from tests.trainer.contracts import document

VERSIONS: dict[str, dict[str, Any]] = {
    "har": {"architecture": "HAR"},
    "linear": {"architecture": "Linear"},
    "lstm": {
        "architecture": "LSTM",
        "training__hyperparameters": {"window": 20, "hidden": 16, "epochs": 6, "learningRate": "0.003"},
    },
    "intervals": {
        "architecture": "MLP",
        "training__hyperparameters": {"epochs": 3, "members": 2, "hidden": 8},
        "training__quantiles": ["0.05", "0.5", "0.95"],
        "training__validation__folds": 2,
    },
}
COMPARED = 400
"""Latest rows whose predictions are kept."""


def main(folder: Path) -> None:
    for name, changes in VERSIONS.items():
        job = contracts.parse(document(**changes))
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            done = pipeline.train(job, Locations(), work / "state", work, lambda **_: None, threading.Event())
            shutil.copytree(done.folder / "version", folder / name)
        bars = data.load(job, Locations()).bars
        np.savez(folder / f"{name}.npz", **_computed(folder / name, bars))
        np.savez(folder / "bars.npz", time=bars.time.astype("datetime64[D]").astype(str), **bars.columns)
    for name, model in (("crashing", _crashing()), ("nan", _nan()), ("silent", _silent()), ("narrow", _narrow())):
        _derived(folder / "linear", folder / name, model)
    _derived(folder / "intervals", folder / "crossing", _crossing())
    _derived(folder / "intervals", folder / "pointless", _model([_COPIED], {**_FIRST}))
    _derived(folder / "intervals", folder / "two-levels", _crossing(levels=2))
    (folder / "complete").touch()


def _computed(folder: Path, bars: Any) -> dict[str, np.ndarray]:
    """Features over the whole history and the predictions of the latest rows, by the trainer's code."""
    import json

    stored = json.loads((folder / "features.json").read_bytes())
    spec, transform = FeatureSpec.from_json(stored), Transform.from_json(stored["transform"])
    shape = json.loads((folder / "signature.json").read_bytes())["inputs"][0]["shape"]
    window = shape[1] if len(shape) == 3 else 1
    features = spec.compute(bars)
    inputs = transform.apply(features).astype(np.float32)
    complete = np.isfinite(inputs).all(axis=1)
    rows = np.array(
        [row for row in range(len(bars) - COMPARED, len(bars)) if complete[row - window + 1 : row + 1].all()]
    )
    batch = np.stack([inputs[row - window + 1 : row + 1] for row in rows])
    predictor = export.Predictor((folder / "model.onnx").read_bytes())
    given = batch if len(shape) == 3 else batch[:, 0]
    found = {"features": features, "rows": rows, "prediction": predictor(given)}
    return found | {"quantiles": predictor.quantiles(given)} if folder.name == "intervals" else found


def _derived(source: Path, target: Path, model: onnx.ModelProto) -> None:
    """The same version with another network; manifest and digest are right, so only serving can tell."""
    files = {name: (source / name).read_bytes() for name in artifact.FILES}
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    version.build(target, {**files, "model.onnx": buffer.getvalue()})


def _model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], width: int = 14, levels: int = 0
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", width])],
        [
            helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1]),
            *([helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, ["batch", levels])] if levels else []),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", export.OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=export.IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


_FIRST = {"axis": np.array([1], np.int64), "zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
_VOLATILITY = helper.make_node("Slice", ["features", "zero", "one", "axis"], ["volatility"])
"""The first feature, rv_1: 0 is its mean in training, and a value above 1.5 is a day of turmoil."""


_COPIED = helper.make_node("Slice", ["features", "zero", "one", "axis"], ["prediction"])


def _crossing(levels: int = 3) -> onnx.ModelProto:
    """Quantiles that ascend on quiet days and descend in turmoil."""
    nodes = [
        _COPIED,
        helper.make_node("Sub", ["edge", "prediction"], ["below"]),
        helper.make_node("Mul", ["below", "places"], ["quantiles"]),
    ]
    places = np.arange(levels, dtype=np.float32)[None]
    return _model(nodes, {**_FIRST, "edge": np.float32([1.5]), "places": places}, levels=levels)


def _crashing() -> onnx.ModelProto:
    """Answers quiet days; in turmoil it looks up an index that its table does not have, and ONNX Runtime raises."""
    nodes = [
        _VOLATILITY,
        helper.make_node("Sub", ["volatility", "edge"], ["above"]),
        helper.make_node("Ceil", ["above"], ["steps"]),
        helper.make_node("Relu", ["steps"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["prediction"]),
    ]
    constants = {**_FIRST, "edge": np.float32([1.5]), "table": np.float32([-5.0])}
    return _model(nodes, constants)


def _nan() -> onnx.ModelProto:
    """Answers quiet days; in turmoil it takes the root of a negative number."""
    nodes = [
        _VOLATILITY,
        helper.make_node("Sub", ["edge", "volatility"], ["below"]),
        helper.make_node("Sqrt", ["below"], ["prediction"]),
    ]
    return _model(nodes, {**_FIRST, "edge": np.float32([1.5])})


def _silent() -> onnx.ModelProto:
    """Answers nothing with a number, its own example included."""
    nodes = [
        _VOLATILITY,
        helper.make_node("Sub", ["volatility", "volatility"], ["nothing"]),
        helper.make_node("Div", ["nothing", "nothing"], ["prediction"]),
    ]
    return _model(nodes, _FIRST)


def _narrow() -> onnx.ModelProto:
    """Reads fewer features than the signature says."""
    return _model([_VOLATILITY, helper.make_node("Identity", ["volatility"], ["prediction"])], _FIRST, width=3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
