"""Run in the stock environment: the ONNX file of a version as an MLflow model with a settings file for MLServer.

``python stock_model.py MODEL.onnx FOLDER HTTP_PORT``
"""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

source, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
model = onnx.load(source)
width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
signature = ModelSignature(
    Schema([TensorSpec(np.dtype(np.float32), (-1, width), "features")]),
    Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "prediction")]),
)
mlflow.onnx.save_model(model, str(folder / "model"), signature=signature)
settings = {
    "name": "stock",
    "implementation": "mlserver_mlflow.MLflowRuntime",
    "parameters": {"uri": str(folder / "model"), "version": "1"},
}
(folder / "model-settings.json").write_text(json.dumps(settings))
server = {
    "debug": False,
    "parallel_workers": 0,
    "host": "127.0.0.1",
    "http_port": port,
    "grpc_port": port + 1,
    "metrics_port": port + 2,
}
(folder / "settings.json").write_text(json.dumps(server))
