"""As much of an API server as kopf needs to watch: discovery, LIST, and watches that stay open.

``forbidden`` and ``absent`` are plurals; what is removed from ``absent`` is there from then on. The real one is asked
in tests/controlplane; this one can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fiduciary.engine import kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ApiServer:
    def __init__(self) -> None:
        self.forbidden: set[str] = set()
        self.absent: set[str] = set()
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.url = ""
        self.watches: dict[str, int] = {}
        self._broken: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ApiServer]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            for broken in self._broken.values():
                broken.set()
            await runner.cleanup()

    def remove(self, plural: str) -> None:
        """The CRD is deleted: its objects go, its watches end, its paths are unknown."""
        self.absent.add(plural)
        self.objects.pop(plural, None)
        self._broken.pop(plural, asyncio.Event()).set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        known = [resource for resource in kinds.WATCHED if resource.plural not in self.absent]
        if parts == ["api"]:
            return web.json_response({"versions": ["v1"]})
        if parts == ["apis"]:
            groups = {resource.group: resource.version for resource in known if resource.group}
            versions = {
                group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in groups.items()
            }
            return web.json_response(
                {"groups": [{"name": g, "versions": [v], "preferredVersion": v} for g, v in versions.items()]}
            )
        version = "/".join(parts[1:2] if parts[0] == "api" else parts[1:3])
        here = [resource for resource in (*known, kinds.NAMESPACE) if resource.api_version == version]  # kopf wants it
        plural = parts[len(version.split("/")) + 1 :]
        if not plural:
            if not here:
                return _status(404)
            return web.json_response({"groupVersion": version, "resources": [_described(kind) for kind in here]})
        if plural[0] not in [resource.plural for resource in here]:
            return _status(404)
        if plural[0] in self.forbidden:
            return _status(403)
        if request.query.get("watch") != "true":
            items = self.objects.get(plural[0], [])
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        return await self._watch(request, plural[0])

    async def _watch(self, request: web.BaseRequest, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.watches[plural] = self.watches.get(plural, 0) + 1
        await self._broken.setdefault(plural, asyncio.Event()).wait()
        return response


def _described(kind: Any) -> dict[str, Any]:
    verbs = ["list", "watch", "get", "patch"]
    return {"name": kind.plural, "kind": kind.kind, "singularName": "", "namespaced": kind.namespaced, "verbs": verbs}


def _status(code: int) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": {403: "Forbidden", 404: "NotFound"}[code], "message": "said so"}
    return web.Response(status=code, text=json.dumps(body), content_type="application/json")
