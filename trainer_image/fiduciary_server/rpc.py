"""The Open Inference Protocol over gRPC: MLServer's service definition, tensors read as arrays."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from grpc import StatusCode
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelMetadataResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceServicer
from mlserver.logging import logger
from mlserver.types import Parameters

from fiduciary_server.errors import BadRequest, NotHere
from fiduciary_server.probes import HEADER as PROBE
from fiduciary_server.rest import APART_FROM, LONGEST_BODY
from fiduciary_server.runtime import LONGEST_ID, Asked
from fiduciary_server.tensors import NUMBERS, Tensor, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpc.aio import ServicerContext

    from fiduciary_server.life import Life
    from fiduciary_server.runtime import Answer, FiduciaryRuntime

MODEL = "fiduciary-model"
"""Metadata that the route matches on, since a gRPC path names no model."""

LONGEST_MESSAGE = 4 * LONGEST_BODY
"""Bytes that gRPC itself takes; between this and ``LONGEST_BODY`` the answer is ours and says what is expected."""

_CODES = {400: StatusCode.INVALID_ARGUMENT, 404: StatusCode.NOT_FOUND, 413: StatusCode.INVALID_ARGUMENT}
_CONTENTS = {
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "INT32": "int_contents",
    "BYTES": "bytes_contents",
}


class Rpc(GRPCInferenceServiceServicer):
    """The servicer.

    Args:
        runtime, life: as for :class:`fiduciary_server.rest.Rest`.
    """

    def __init__(self, runtime: FiduciaryRuntime, life: Life) -> None:
        self._runtime = runtime
        self._life = life
        serving = runtime.serving
        self._own = (("fiduciary-version", serving.version), ("fiduciary-digest", serving.digest))

    async def ServerLive(self, request: pb.ServerLiveRequest, context: ServicerContext) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: ServicerContext) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._life.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: ServicerContext) -> pb.ModelReadyResponse:
        await self._demand_here(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self._life.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: ServicerContext
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**self._life.server_metadata)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: ServicerContext
    ) -> pb.ModelMetadataResponse:
        await self._demand_here(request.name, request.version, context)
        if not self._life.loaded:
            await self._abort(context, StatusCode.UNAVAILABLE, self._life.why_not)
        metadata = await self._runtime.metadata()
        given = metadata.parameters.model_dump() if metadata.parameters else {}
        # A parameter of the protocol is text, a number or a truth value: documents travel as JSON text.
        metadata.parameters = Parameters(
            **{name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
        )
        return ModelMetadataResponseConverter.from_types(metadata)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: ServicerContext) -> pb.ModelInferResponse:
        if not self._life.loaded:
            await self._abort(context, StatusCode.UNAVAILABLE, self._life.why_not)
        runtime = self._runtime
        sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        if request.model_name != runtime.serving.name:
            await self._demand_here(request.model_name, request.model_version, context)
        probe = runtime.probes.signed(sent.get(PROBE))
        code, message = StatusCode.INTERNAL, "internal error; the server's log has it"
        with runtime.metrics.request("grpc", probe) as counted:
            try:
                size = request.ByteSize()
                if size < APART_FROM:
                    answer = self._predict(request, sent, size, probe is None)
                else:
                    apart = asyncio.get_running_loop().run_in_executor
                    answer = await apart(runtime.apart, self._predict, request, sent, size, probe is None)
                counted.outcome = "success"
                return answer
            except MLServerError as error:
                code, message = _CODES.get(error.status_code, StatusCode.INTERNAL), str(error)
                counted.outcome = "client_error" if error.status_code < 500 else "server_error"
                if error.status_code >= 500:
                    logger.error("%s", error)
            except asyncio.CancelledError:
                counted.outcome = "client_error"
                raise
            except Exception:  # a bug of ours: the log has it, the client does not
                logger.exception("an inference request failed")
        await self._abort(context, code, message)

    async def ModelStreamInfer(self, request_iterator: Any, context: ServicerContext) -> None:
        await self._abort(context, StatusCode.UNIMPLEMENTED, "streams are not served; call ModelInfer")

    async def RepositoryIndex(self, request: Any, context: ServicerContext) -> None:
        await self._no_repository(context)

    async def RepositoryModelLoad(self, request: Any, context: ServicerContext) -> None:
        await self._no_repository(context)

    async def RepositoryModelUnload(self, request: Any, context: ServicerContext) -> None:
        await self._no_repository(context)

    async def _no_repository(self, context: ServicerContext) -> None:
        await self._abort(
            context, StatusCode.UNIMPLEMENTED, "this server has one version and neither loads nor unloads"
        )

    def _predict(
        self, request: pb.ModelInferRequest, sent: Mapping[str, str], size: int, live: bool
    ) -> pb.ModelInferResponse:
        serving = self._runtime.serving
        if size > LONGEST_BODY:
            raise BadRequest(
                f"the message has {size} bytes; at most {LONGEST_BODY} are taken: send fewer rows at a time"
            )
        if sent.get(MODEL) != serving.name:
            seen = f"is {quoted(sent[MODEL])}" if MODEL in sent else "is missing"
            raise BadRequest(f"metadata {MODEL} {seen}; expected {serving.name}: the route to the model matches on it")
        if request.model_version not in ("", serving.version):
            raise NotHere(
                f"version {quoted(request.model_version)} of {serving.name} is not served here; this is version "
                f"{serving.version}"
            )
        raw = len(request.raw_input_contents) > 0
        asked = _asked(request, raw, sent.get("x-request-id"))
        return self._response(asked, self._runtime.answer(asked, live=live), raw)

    def _response(self, asked: Asked, answer: Answer, raw: bool) -> pb.ModelInferResponse:
        serving = self._runtime.serving
        message = pb.ModelInferResponse(
            model_name=serving.name,
            model_version=serving.version,
            id=asked.identity or "",
            outputs=[
                pb.ModelInferResponse.InferOutputTensor(
                    name=name,
                    datatype="FP32",
                    shape=shape,
                    contents=None if raw else pb.InferTensorContents(fp32_contents=data),
                )
                for name, shape, data, _ in answer.outputs
            ],
        )
        for name, value in self._runtime.parameters(answer).items():
            message.parameters[name].string_param = value
        for tensor, output in zip(message.outputs, answer.outputs, strict=True):
            if output.levels is not None:
                tensor.parameters["levels"].string_param = output.levels
        if raw:
            message.raw_output_contents.extend(np.asarray(each.data, dtype="<f4").tobytes() for each in answer.outputs)
        return message

    async def _demand_here(self, name: str, version: str, context: ServicerContext) -> None:
        serving = self._runtime.serving
        if name != serving.name:
            await self._abort(
                context, StatusCode.NOT_FOUND, f"model {quoted(name)} is not served here; this is {serving.name}"
            )
        if version not in ("", serving.version):
            await self._abort(
                context,
                StatusCode.NOT_FOUND,
                f"version {quoted(version)} of {serving.name} is not served here; this is version {serving.version}",
            )

    async def _abort(self, context: ServicerContext, code: StatusCode, message: str) -> NoReturn:
        await context.abort(code, message, self._own)
        raise AssertionError("abort does not return")


def _asked(request: pb.ModelInferRequest, raw: bool, trace: str | None) -> Asked:
    """The request, numbers as arrays.

    Raises:
        BadRequest: raw contents that are not as many as the tensors, or not as long as their type says.
    """
    if raw and len(request.raw_input_contents) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents has {len(request.raw_input_contents)} entries for {len(request.inputs)} inputs; "
            "expected one for each"
        )
    tensors = [
        Tensor(
            tensor.name,
            tensor.datatype,
            list(tensor.shape),
            _unpacked(tensor, request.raw_input_contents[place]) if raw else _contents(tensor),
        )
        for place, tensor in enumerate(request.inputs)
    ]
    outputs = [wanted.name for wanted in request.outputs]
    return Asked(tensors, request.id or None, outputs, None if trace is None else trace[:LONGEST_ID])


def _contents(tensor: pb.ModelInferRequest.InferInputTensor) -> Any:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        return []  # refused for its datatype, in better words than for its contents
    values = getattr(tensor.contents, field)
    return list(values) if tensor.datatype == "BYTES" else np.array(values, dtype=NUMBERS[tensor.datatype])


def _unpacked(tensor: pb.ModelInferRequest.InferInputTensor, content: bytes) -> Any:
    if tensor.datatype == "BYTES":
        return _strings(tensor.name, content)
    kind = NUMBERS.get(tensor.datatype)
    if kind is None:
        return []
    dtype = np.dtype(kind).newbyteorder("<")
    if len(content) % dtype.itemsize:
        raise BadRequest(
            f"the raw contents of {quoted(tensor.name)} have {len(content)} bytes; expected {dtype.itemsize} for each "
            f"{tensor.datatype}"
        )
    values = np.frombuffer(content, dtype=dtype)
    return values if sys.byteorder == "little" else values.astype(kind)


def _strings(name: str, content: bytes) -> list[bytes]:
    """Each with its length before it, four bytes, little end first."""
    result: list[bytes] = []
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        at += 4
        if at + size > len(content):
            raise BadRequest(f"the raw contents of {quoted(name)} end within a string")
        result.append(content[at : at + size])
        at += size
    return result
