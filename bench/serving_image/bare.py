"""The baseline: ONNX Runtime behind fifteen lines of Starlette. It checks nothing, counts nothing and computes nothing.

``python -m bench.serving_image.bare MODEL.onnx PORT``
"""

import sys

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


async def infer(request: Request) -> JSONResponse:
    given = (await request.json())["inputs"][0]
    x = np.array(given["data"], dtype=np.float32).reshape(given["shape"])
    y = session.run(None, {"features": x})[0]
    output = {"name": "prediction", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
    return JSONResponse({"model_name": "bare", "outputs": [output]})


app = Starlette(routes=[Route("/v2/models/bare/infer", infer, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
