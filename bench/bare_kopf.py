"""The baseline of the loop benchmark: kopf alone, with the operator's settings, one status write an object.

Nothing is decided, mirrored, queued or measured here. What the operator costs above this is its own.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import kopf

from fiduciary.clients import access  # how to reach the API server, nothing more

GROUP, VERSION, PLURAL = "fiduciary.dev", "v1alpha1", "financialmodels"


class NothingHandled(kopf.DiffBaseStorage):
    def build(self, *, body: Any, **_: Any) -> Any:
        return {}

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def settings() -> kopf.OperatorSettings:
    """As `fiduciary.engine.sensor.sensor_settings`, written out so that none of the operator is imported."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.persistence.diffbase_storage = NothingHandled()
    chosen.persistence.progress_storage = NoProgress()
    chosen.watching.chunk_size = 500
    chosen.queueing.idle_timeout = 0.5
    chosen.networking.request_timeout = 30.0
    return chosen


async def main() -> None:
    reach = access.find()
    registry = kopf.OperatorRegistry()
    async with reach.connector() as pool:
        session = reach.session(pool)

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.AiohttpSession:
            return kopf.AiohttpSession(server=reach.server, aiohttp_session=reach.session(pool))

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def write_once(event: Any, **_: Any) -> None:
            body = event["object"]
            metadata, status = body["metadata"], body.get("status") or {}
            if event["type"] == "DELETED" or status.get("observedGeneration") == metadata["generation"]:
                return
            ready = {"type": "Ready", "status": "False", "reason": "Suspended", "message": "spec.suspend is true"}
            ready |= {"observedGeneration": metadata["generation"], "lastTransitionTime": metadata["creationTimestamp"]}
            wanted = {"observedGeneration": metadata["generation"], "phase": "Suspended", "conditions": [ready]}
            identity = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
            patch = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": identity, "status": wanted}
            path = f"/apis/{GROUP}/{VERSION}/namespaces/{metadata['namespace']}/{PLURAL}/{metadata['name']}/status"
            async with session.patch(
                reach.server + path,
                params={"fieldManager": "bare", "force": "true"},
                data=json.dumps(patch).encode(),
                headers={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            ) as response:
                await response.read()
                response.raise_for_status()

        try:
            await kopf.operator(registry=registry, settings=settings(), clusterwide=True, standalone=True)
        finally:
            await session.close()


asyncio.run(main())
