"""Many versions in one process: the model server of a Seldon Core v2 Server, beside Seldon's agent.

The agent brings folders, tells MLServer to load and unload them, and hands on clients' requests under names of its own
(``<model>_<n>``). Those calls are MLServer's; requests for a version are answered by the same code that serves it
alone, so that digest, counters, probes, records and words of refusal are the same on every backend.
"""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserver.errors import MLServerError
from mlserver.grpc.servicers import InferenceServicer
from mlserver.logging import logger
from mlserver.registry import MultiModelRegistry
from mlserver.rest import RESTServer
from mlserver.utils import to_absolute_path
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fiduciary_server.ending import Ended
from fiduciary_server.fetching.fetch import verify
from fiduciary_server.life import Life
from fiduciary_server.rest import Rest
from fiduciary_server.rpc import MODEL, Rpc
from fiduciary_server.runtime import FiduciaryRuntime
from fiduciary_server.server import END_SECONDS, Exposition, Grpc, Http, Stoppable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from grpc.aio import ServicerContext
    from mlserver import MLModel, ModelSettings, Settings
    from mlserver.grpc import dataplane_pb2 as pb
    from prometheus_client.metrics_core import Metric

    from fiduciary_server.rest import Receive, Scope, Send

DRAIN_SECONDS = 10.0
INTERNAL = "model_internal"
"""Label with the agent's name for what it loaded, ``<Model>_<n>``, as the agent's own counters have it. It is unique in
a process, and only who may make that Model can have it: what a version's document says of itself is neither."""


class SharedRuntime(FiduciaryRuntime):
    """A version that the agent loads: named in ``model-settings.json``, told by the parameter ``serving`` of its Model.

    Raises:
        ValueError: the Model has no such parameter.
    """

    def __init__(self, settings: ModelSettings) -> None:
        assert settings.parameters is not None
        if "serving" not in (settings.parameters.extra or {}):
            raise ValueError("BadContract: the Model has no parameter `serving`; let the operator make it")
        folder = to_absolute_path(settings, settings.parameters.uri or ".")
        settings.parameters.uri = folder
        super().__init__(settings)
        self._place = Path(folder)

    async def load(self) -> bool:
        """Compare the folder with the digest that the operator accepted, then load it.

        Raises:
            MLServerError: DigestMismatch or BadVersion, in words that the agent hands on to the Model's status.
        """
        try:
            await asyncio.to_thread(verify, self._place, self.serving.digest)
            return await super().load()
        except Ended as ended:
            raise MLServerError(str(ended), status_code=500) from None

    async def unload(self) -> bool:
        """Send what records there are; memory that was set aside as permanent is so no longer."""
        if hasattr(self, "records"):
            await asyncio.to_thread(self.records.close, END_SECONDS)
        gc.unfreeze()
        return True


class SharedServer(Stoppable):
    """MLServer whose versions answer by our transports.

    Args:
        settings: MLServer's: ports, the folder of the repository.
    """

    def __init__(self, settings: Settings) -> None:
        self.loaded: dict[str, _Loaded] = {}
        super().__init__(settings)

    def _create_model_registry(self) -> MultiModelRegistry:
        return MultiModelRegistry(
            on_model_load=[self._came], on_model_reload=[self._replaced], on_model_unload=[self._went]
        )

    def _create_servers(self) -> None:
        self._kafka_server = None
        settings = self._settings
        stock = RESTServer(settings, self._data_plane, self._model_repository_handlers)
        front = _Rest(self.loaded, stock._app)
        servicer = _Rpc(self.loaded, self._data_plane, self._model_repository_handlers)
        self._rest_server: Any = Http(front, settings.host, settings.http_port)
        self._grpc_server: Any = Grpc(servicer, settings.host, settings.grpc_port)
        self._metrics_server: Any = Http(Exposition(self._exposition), settings.host, settings.metrics_port)
        self._registry = CollectorRegistry()
        self._registry.register(_All(self.loaded))
        ProcessCollector(registry=self._registry)

    def _exposition(self) -> bytes:
        return generate_latest(self._registry)

    async def _came(self, model: MLModel) -> MLModel:
        if isinstance(model, FiduciaryRuntime):
            self.loaded[model.name] = _Loaded(model)
        return model

    async def _replaced(self, old: MLModel, new: MLModel) -> MLModel:
        return await self._came(new)

    async def _went(self, model: MLModel) -> MLModel:
        self.loaded.pop(model.name, None)
        return model

    async def serve(self) -> None:
        """Serve until told to end; what is served is the agent's business."""
        await self.start([])
        await self.ended()

    async def stop(self, sig: int | None = None) -> None:
        """The agent moves versions elsewhere first; what is left is answered to its end."""
        logger.info("draining")
        served = list(self.loaded.values())
        await asyncio.gather(*(one.life.drain(DRAIN_SECONDS) for one in served))
        await asyncio.gather(self._grpc_server.stop(), self._rest_server.stop())
        await asyncio.gather(*(one.runtime.unload() for one in served if one.life.loaded))
        await self._metrics_server.stop()
        logger.info("ended")


class _Loaded:
    """One version with its transports."""

    def __init__(self, runtime: FiduciaryRuntime) -> None:
        self.runtime = runtime
        self.since = time.time()
        self.life = Life(runtime)
        self.rest = Rest(runtime, self.life)
        self.rpc = _Named(runtime, self.life)


class _Named(Rpc):
    """A version whose name clients of a mesh do not send: the mesh chose it already."""

    def _predict(self, request: pb.ModelInferRequest, sent: Mapping[str, str], size: int, live: bool) -> Any:
        return super()._predict(request, {**sent, MODEL: self._runtime.serving.name}, size, live)


class _Rest:
    """Requests for a version go to it under its own name; everything else is MLServer's."""

    def __init__(self, loaded: Mapping[str, _Loaded], stock: Any) -> None:
        self._loaded = loaded
        self._stock = stock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = scope["path"].split("/") if scope["type"] == "http" else []
        found = self._loaded.get(parts[3]) if parts[1:3] == ["v2", "models"] and len(parts) > 3 else None
        if found is None:
            await self._stock(scope, receive, send)
            return
        rest = parts[6:] if parts[4:5] == ["versions"] else parts[4:]
        path = "/".join(["", "v2", "models", found.runtime.serving.name, *rest])
        await found.rest({**scope, "path": path}, receive, send)


class _Rpc(InferenceServicer):
    """The same over gRPC."""

    def __init__(self, loaded: Mapping[str, _Loaded], data_plane: Any, handlers: Any) -> None:
        super().__init__(data_plane, handlers)
        self._loaded = loaded

    async def ModelInfer(self, request: pb.ModelInferRequest, context: ServicerContext) -> Any:
        found = self._found(request, request.model_name)
        if found is None:
            return await super().ModelInfer(request, context)
        request.model_name = found.runtime.serving.name
        return await found.rpc.ModelInfer(request, context)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: ServicerContext) -> Any:
        found = self._found(request, request.name)
        if found is None:
            return await super().ModelReady(request, context)
        request.name = found.runtime.serving.name
        return await found.rpc.ModelReady(request, context)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: ServicerContext) -> Any:
        found = self._found(request, request.name)
        if found is None:
            return await super().ModelMetadata(request, context)
        request.name = found.runtime.serving.name
        return await found.rpc.ModelMetadata(request, context)

    def _found(self, request: Any, name: str) -> _Loaded | None:
        """The version; its number is the agent's, so none is asked for."""
        found = self._loaded.get(name)
        if found is not None:
            for field in ("model_version", "version"):
                if hasattr(request, field):
                    setattr(request, field, "")
        return found


class _All(Collector):
    """The series of every version, each family once, under the agent's name for it.

    A version that is unloaded and comes again counts from 0 in a process that did not restart: each has a start of its
    own.
    """

    def __init__(self, loaded: Mapping[str, _Loaded]) -> None:
        self._loaded = loaded

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        started = GaugeMetricFamily(
            "fiduciary_version_start_time_seconds",
            "When the counting of a version began, in seconds since the epoch",
            labels=(INTERNAL,),
        )
        for name, one in list(self._loaded.items()):
            started.add_metric((name,), one.since)
            for family in one.runtime.metrics.collect():
                family.samples = [
                    sample._replace(labels={**sample.labels, INTERNAL: name}) for sample in family.samples
                ]
                if family.name in families:
                    families[family.name].samples.extend(family.samples)
                else:
                    families[family.name] = family
        yield started
        yield from families.values()
