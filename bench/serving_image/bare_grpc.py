"""The same over gRPC: ``python -m bench.serving_image.bare_grpc MODEL.onnx PORT``."""

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime
import uvloop
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


class Bare(GRPCInferenceServiceServicer):
    async def ModelInfer(self, request: pb.ModelInferRequest, context: object) -> pb.ModelInferResponse:
        x = np.frombuffer(request.raw_input_contents[0], "<f8").astype(np.float32).reshape(request.inputs[0].shape)
        y = session.run(None, {"features": x})[0]
        answer = pb.ModelInferResponse(model_name="bare", raw_output_contents=[y.tobytes()])
        answer.outputs.add(name="prediction", datatype="FP32", shape=y.shape)
        return answer


async def main() -> None:
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(Bare(), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    await server.start()
    await server.wait_for_termination()


uvloop.install()
asyncio.run(main())
