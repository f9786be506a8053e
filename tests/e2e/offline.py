"""What a version says without any server: ONNX Runtime on the files that MLflow keeps, in the trainer's image."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.market import Market
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

# Reads {features, onnx, requests: [bars]} and prints one forecast for each.
SCRIPT = """
import base64, json, sys
import numpy as np, onnxruntime
from fiduciary_features import Bars, FeatureSpec, Transform
told = json.load(sys.stdin)
features = FeatureSpec.from_json(told["features"])
transform = Transform.from_json(told["features"]["transform"])
session = onnxruntime.InferenceSession(base64.b64decode(told["onnx"]), providers=["CPUExecutionProvider"])
said = []
for bars in told["requests"]:
    time = np.array(bars["time"], dtype="datetime64[ns]")
    columns = {name: np.array(values, dtype=np.float64) for name, values in bars["columns"].items()}
    inputs = transform.apply(features.compute(Bars(time, np.full(len(time), ""), columns)))[-1:].astype(np.float32)
    said.append(float(session.run(["prediction"], {"features": inputs})[0].reshape(-1)[0]))
json.dump(said, sys.stdout)
"""


def predictions(node: Node, registry: Registry, run_id: str, requests: Sequence[Market]) -> list[float]:
    """The forecast at the last bar of each request, by the version that the run logged."""
    told = {
        "features": json.loads(registry.artifact(run_id, "version/features.json")),
        "onnx": base64.b64encode(registry.artifact(run_id, "version/model.onnx")).decode(),
        "requests": [{"time": [*bars.time], "columns": dict(bars.columns)} for bars in requests],
    }
    return json.loads(node.run("python3", "-c", SCRIPT, stdin=json.dumps(told)))
