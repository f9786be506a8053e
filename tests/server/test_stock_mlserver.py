"""The runtime is a model of MLServer's own kind: its stock transports serve it too, as where Seldon starts MLServer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
from mlserver import ModelSettings, Settings
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.registry import MultiModelRegistry
from mlserver.repository.repository import SchemalessModelRepository
from mlserver.rest.app import create_app
from mlserver.settings import ModelParameters

from fiduciary_server.runtime import FiduciaryRuntime
from tests.server.served import NAME, digest_of, document, window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np


def test_the_stock_rest_application_serves_it(versions: Path, bars: Mapping[str, np.ndarray]) -> None:
    with_digest = document(digest_of(versions / "linear"))
    parameters = ModelParameters(uri=str(versions / "linear"), version="7", extra={"serving": json.dumps(with_digest)})
    model = ModelSettings(name=NAME, implementation=FiduciaryRuntime, parameters=parameters)
    settings = Settings(debug=False, parallel_workers=0, metrics_endpoint=None, gzip_enabled=False)

    async def look() -> None:
        registry = MultiModelRegistry()
        plane = DataPlane(settings, registry)
        repository = ModelRepositoryHandlers(SchemalessModelRepository(str(versions)), registry)
        app = create_app(settings, plane, repository)
        loaded = await registry.load(model)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
            answer = await http.post(f"/v2/models/{NAME}/infer", json=window(bars, 4000))
            assert answer.status_code == 200, answer.text
            assert answer.json()["parameters"]["digest"] == with_digest["digest"]
            assert isinstance(loaded, FiduciaryRuntime)
            metadata = (await http.get(f"/v2/models/{NAME}")).json()
            assert metadata["parameters"]["exampleRequest"] == loaded.example
            refused = await http.post(f"/v2/models/{NAME}/infer", json={"inputs": []})
            assert refused.status_code == 400
            assert "no tensor 'open'" in refused.json()["error"]

    asyncio.run(look())
