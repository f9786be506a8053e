"""MLServer with our transports in the place of its own, and an end that loses no request."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import uvicorn
from grpc import aio
from mlserver import MLServer, ModelSettings, Settings
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.logging import logger
from mlserver.registry import MultiModelRegistry
from prometheus_client import CONTENT_TYPE_LATEST

from fiduciary_server.life import Life
from fiduciary_server.rest import Rest
from fiduciary_server.rpc import LONGEST_MESSAGE, Rpc
from fiduciary_server.runtime import FiduciaryRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from fiduciary_server.rest import Receive, Scope, Send

IDLE_SECONDS = 2 * 3600
"""An idle connection is kept longer than gateways keep theirs (Envoy: an hour): the side that sends must be the one
that closes, or now and then it sends into a connection that is being closed."""

END_SECONDS = 5.0
"""For requests that are still under way when draining is over, and then for records that were not sent."""


class Stoppable(MLServer):
    """MLServer that ends once, in its own time."""

    _stopping: asyncio.Task[None] | None = None

    def _add_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, self._end)

    def _end(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self.stop())

    async def ended(self) -> None:
        """Return when the end that was begun is over."""
        if self._stopping is not None:
            await self._stopping


class Server(Stoppable):
    """One version, served.

    Args:
        settings: MLServer's.
        model: of the one model.
    """

    def __init__(self, settings: Settings, model: ModelSettings) -> None:
        self.runtime = FiduciaryRuntime(model)
        self.life = Life(self.runtime)
        self._model = model
        super().__init__(settings)

    def _create_model_registry(self) -> MultiModelRegistry:
        # One model, made already, since the transports must know it before it is loaded; it has no handlers of its own.
        return MultiModelRegistry(model_initialiser=lambda _: self.runtime)

    def _create_servers(self) -> None:
        self._kafka_server = None
        settings = self._settings
        self._rest_server: Any = Http(Rest(self.runtime, self.life), settings.host, settings.http_port)
        self._grpc_server: Any = Grpc(Rpc(self.runtime, self.life), settings.host, settings.grpc_port)
        self._metrics_server: Any = Http(
            Exposition(self.runtime.metrics.exposition), settings.host, settings.metrics_port
        )

    async def serve(self) -> None:
        """Load, serve, and return when the server was told to end.

        Raises:
            Ended: BadVersion.
        """
        await self.start([self._model])
        await self.ended()
        if self.runtime.failure is not None:
            raise self.runtime.failure

    async def stop(self, sig: int | None = None) -> None:
        """Not ready, drained, closed, records sent; metrics last, so that the end is seen too."""
        logger.info("draining")
        await self.life.drain(self.runtime.serving.drain_seconds)
        await asyncio.gather(self._grpc_server.stop(), self._rest_server.stop())
        if self.life.loaded:
            await asyncio.to_thread(self.runtime.records.close, END_SECONDS)
        await self._metrics_server.stop()
        logger.info("ended")


class _Quiet(uvicorn.Server):
    """uvicorn takes SIGTERM for itself otherwise, stops listening at once and raises the signal again at its end."""

    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()


class Http:
    """An ASGI application behind uvicorn, with the interface of MLServer's servers."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=int(END_SECONDS),
        )
        self._server = _Quiet(config)
        self._ended = asyncio.Event()

    async def start(self) -> None:
        try:
            await self._server.serve()
        finally:
            self._ended.set()

    async def stop(self, sig: int | None = None) -> None:
        """Refuse new connections, answer what was sent, and return when every connection is closed."""
        self._server.should_exit = True
        await self._ended.wait()


class Grpc:
    """The gRPC server, with the interface of MLServer's."""

    def __init__(self, servicer: Rpc, host: str, port: int) -> None:
        self._servicer = servicer
        self._address = f"{host}:{port}"
        self._server: aio.Server | None = None
        self._stopped = False

    async def start(self) -> None:
        if self._stopped:
            return
        options = [
            ("grpc.max_receive_message_length", LONGEST_MESSAGE),
            ("grpc.max_send_message_length", LONGEST_MESSAGE),
            ("grpc.so_reuseport", 0),
        ]
        self._server = server = aio.server(options=options)
        add_GRPCInferenceServiceServicer_to_server(self._servicer, server)
        server.add_insecure_port(self._address)
        await server.start()
        await server.wait_for_termination()

    async def stop(self, sig: int | None = None) -> None:
        self._stopped = True
        if self._server is not None:
            await self._server.stop(grace=END_SECONDS)


class Exposition:
    """``/metrics`` of our registry alone."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = scope["path"] == "/metrics"
        body = self._exposition() if found else b"metrics are at /metrics\n"
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})
