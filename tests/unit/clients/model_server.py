"""A small real model server over REST and gRPC: it answers with a version and checks signatures as the runtime does."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MODEL = "quant.spx"
DIGEST = "sha256:" + "7" * 64
EXAMPLE = {
    "id": "probe",
    "parameters": {"entity": "SPX"},
    "inputs": [
        {"name": "close", "datatype": "FP64", "shape": [1, 3], "data": [[1.5, 2.5, -3.25]]},
        {"name": "count", "datatype": "INT64", "shape": [2], "data": [3, -4]},
        {"name": "time", "datatype": "BYTES", "shape": [2], "data": ["2018-01-02", "2018-01-03"]},
        {"name": "holiday", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        {"name": "weight", "datatype": "FP32", "shape": [2], "data": [0.5, 0.25]},
    ],
}


class ModelServer:
    """``verified`` lists (digest of the signature, seconds, nonce) of each good probe; ``bad`` counts others."""

    def __init__(self, public: str = "", digest: str = DIGEST, version: str = "7") -> None:
        self.public = public
        self.digest = digest
        self.version = version
        self.verified: list[tuple[str, int, str]] = []
        self.bad = 0
        self.hosts: list[str] = []
        self.bodies: list[Any] = []
        self.intercept: Callable[[web.Request], web.Response | None] = lambda request: None
        self.further: dict[str, str] = {}  # headers of every answer
        self.received: dict[str, str] = {}  # headers of the last prediction
        self.rest_port = 0
        self.grpc_port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ModelServer]:
        application = web.Application()
        application.router.add_get("/v2/models/{model}", self._metadata)
        application.router.add_post("/v2/models/{model}/infer", self._infer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.rest_port = runner.addresses[0][1]
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handler(self),))
        self.grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)
            await runner.cleanup()

    @asynccontextmanager
    async def secured(self, credentials: grpc.ServerCredentials) -> AsyncIterator[int]:
        """gRPC over TLS; yields the port."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handler(self),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield port
        finally:
            await server.stop(None)

    @property
    def headers(self) -> dict[str, str]:
        return {"fiduciary-version": self.version, "fiduciary-digest": self.digest, **self.further}

    async def _metadata(self, request: web.Request) -> web.Response:
        self.hosts.append(request.host)
        if (other := self.intercept(request)) is not None:
            return other
        body = {"name": MODEL, "versions": [self.version], "parameters": {"exampleRequest": EXAMPLE}}
        return web.json_response(body, headers=self.headers)

    async def _infer(self, request: web.Request) -> web.Response:
        self.hosts.append(request.host)
        if (other := self.intercept(request)) is not None:
            return other
        self.received = dict(request.headers)
        self.bodies.append(await request.json())
        self.check(request.headers.get("fiduciary-probe", ""))
        body = {"model_name": MODEL, "model_version": self.version, "outputs": []}
        return web.json_response(body, headers=self.headers)

    def check(self, header: str) -> None:
        """What protocols §4 asks of a signed probe."""
        try:
            version, seconds, nonce, signature = header.split(".")
            raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except ValueError:
            self.bad += 1
            return
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.public))
        namespace, _, model = MODEL.partition(".")
        for digest in (self.digest, "*"):
            try:
                key.verify(raw, f"{version}.{seconds}.{nonce}.{namespace}.{model}.{digest}".encode())
            except InvalidSignature:
                continue
            self.verified.append((digest, int(seconds), nonce))
            return
        self.bad += 1


class _Handler(grpc.GenericRpcHandler):
    """ModelInfer on raw bytes: the request is recorded, the answer written by hand from the protocol's definition."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method != "/inference.GRPCInferenceService/ModelInfer":
            return None
        return grpc.unary_unary_rpc_method_handler(self._infer)

    async def _infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        self._server.bodies.append(request)
        if metadata.get("fiduciary-model") != MODEL:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {metadata.get('fiduciary-model')!r} hereü")
        self._server.check(str(metadata.get("fiduciary-probe", "")))
        await asyncio.sleep(0)
        parameters = {"version": self._server.version, "digest": self._server.digest, "predictionId": "p-1"}
        return b"\x0a" + _bytes(MODEL) + b"\x12" + _bytes(self._server.version) + b"".join(
            b"\x22" + _bytes(b"\x0a" + _bytes(name) + b"\x12" + _bytes(b"\x1a" + _bytes(value)))
            for name, value in parameters.items()
        )  # fmt: skip


def _bytes(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    assert len(raw) < 128
    return bytes([len(raw)]) + raw
