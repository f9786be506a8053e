"""What makes a control plane serve: pods that get ready, a Gateway controller, and a network with model servers.

Deployments, ReplicaSets, garbage collection and the Gateway API's validation are Kubernetes' own. What the kubelet and
a Gateway controller report is written here, and what their network would do is one server for all names: it answers for
the route as the controller last took it over, or for a version by its Service. A signature is checked as the runtime
does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.controlplane.server import Refused

if TYPE_CHECKING:
    from tests.controlplane.server import Api, Body

GATEWAY = "edge"
#: Address of the Gateway by the operator's settings; the network finds it.
URL = "http://edge.test"
SERVES = {"labelSelector": "fiduciary.dev/component=serving"}
EXAMPLE = {"inputs": [{"name": "close", "datatype": "FP64", "shape": [1, 2], "data": [[1.0, 2.0]]}]}


def gateway(namespace: str) -> Body:
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": namespace},
        "spec": {"gatewayClassName": "test", "listeners": [listener]},
    }


def routes(namespace: str, name: str = "", kind: str = "httproutes") -> str:
    return f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


def apps(namespace: str, name: str = "") -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments" + (f"/{name}" if name else "")


class ServingNode:
    """Works in the background from :meth:`start` to :meth:`stop`, on some namespaces; ``rest``, ``grpc`` are ports."""

    def __init__(self, api: Api, *namespaces: str) -> None:
        self.api = api
        self.namespaces = namespaces
        self.forces: dict[str, list[tuple[str, int]]] = {}  # "<namespace>.<model>" -> Service, weight
        self.versions: dict[str, tuple[str, str]] = {}  # "<service>.<namespace>" -> version, digest of what is ready
        self.lent: dict[str, tuple[str, str]] = {}  # the same of pods that other controllers make
        self.hijacked = False
        self.signed = self.unsigned = 0
        self.rest = self.grpc = 0
        self.problem: Exception | None = None
        self.passing: Exception | None = None  # the last that was expected to pass
        self._public = None
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def start(self) -> ServingNode:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def install(self) -> ServingNode:
        """A Gateway in each namespace."""
        for namespace in self.namespaces:
            self.api.create(gateway(namespace))
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert self.problem is None, self.problem

    @property
    def network(self) -> dict[str, int]:
        return {"rest": self.rest, "grpc": self.grpc}

    def settings(self) -> dict[str, Any]:
        return {"gateways": {f"{namespace}/{GATEWAY}": {"url": URL} for namespace in self.namespaces}}

    def shares(self, namespace: str) -> dict[str, int]:
        """Version's name -> weight of what clients' requests to the model get now."""
        return {service.removesuffix("-ks"): weight for service, weight in self.forces.get(f"{namespace}.spx", ())}

    def copied(self, namespace: str) -> str:
        """Name of the version that gets copies of them; empty: none does."""
        if not self.api.exists(routes(namespace, "spx")):
            return ""
        rule = self.api.get(routes(namespace, "spx"))["spec"]["rules"][0]
        copies = [
            one["requestMirror"]["backendRef"]["name"] for one in rule.get("filters") or [] if "requestMirror" in one
        ]
        return copies[0].removesuffix("-mirror").removesuffix("-ks") if copies else ""

    def clients(self, namespace: str, name: str = "spx") -> set[str]:
        """Digests that clients of the model get now."""
        return {
            self.versions[f"{service}.{namespace}"][1]
            for service, weight in self.forces.get(f"{namespace}.{name}", [])
            if weight > 0 and f"{service}.{namespace}" in self.versions
        }

    # -- the node and the controller

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_get("/v2/models/{model}", self._metadata)
        application.router.add_post("/v2/models/{model}/infer", self._infer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.rest = runner.addresses[0][1]
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Grpc(self),))
        self.grpc = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._started.set()
        while not self._stop.is_set():
            try:
                await asyncio.to_thread(self._turn)
            except (Refused, httpx.HTTPError) as error:
                self.passing = (
                    error  # the API server restarts, or an object changed or went between two requests: next time
                )
            except Exception as error:
                self.problem = error
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.2)
        await server.stop(None)
        await runner.cleanup()

    def _turn(self) -> None:
        versions: dict[str, tuple[str, str]] = {}
        forces: dict[str, list[tuple[str, int]]] = {}
        for namespace in self.namespaces:
            for pod in self._list(f"/api/v1/namespaces/{namespace}/pods"):
                self._run(namespace, pod)
            services = {item["metadata"]["name"] for item in self._list(f"/api/v1/namespaces/{namespace}/services")}
            for deployment in self._list(apps(namespace)):
                metadata = deployment["metadata"]
                if deployment["status"].get("readyReplicas") and metadata["name"] in services:
                    version = metadata["labels"]["fiduciary.dev/version"]
                    digest = metadata["annotations"]["fiduciary.dev/digest"]
                    versions[f"{metadata['name']}.{namespace}"] = version, digest
            if self.api.exists(routes(namespace, GATEWAY, "gateways")):
                self._program(namespace)
                for route in self._list(routes(namespace)):
                    forces[f"{namespace}.{route['metadata']['name']}"] = self._take_over(namespace, route)
        self.versions, self.forces = {**versions, **self.lent}, forces

    def _list(self, path: str) -> list[Body]:
        return self.api.request("GET", path, params=SERVES)["items"]

    def _run(self, namespace: str, pod: Body) -> None:
        if "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") == "Running":
            return
        image = pod["spec"]["containers"][0]["image"]
        container = {"name": "server", "image": image, "imageID": "server@sha256:" + "5" * 64, "ready": True}
        state = {"restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady", "Ready")]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container | state]}
        self.api.merge(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status", {"status": status})

    def _program(self, namespace: str) -> None:
        path = routes(namespace, GATEWAY, "gateways")
        if any(c["type"] == "Programmed" and c["status"] == "True" for c in self._conditions(self.api.get(path))):
            return
        condition = {"type": "Programmed", "status": "True", "reason": "Programmed", "message": ""}
        self.api.merge(f"{path}/status", {"status": {"conditions": [condition | {"lastTransitionTime": _THEN}]}})

    @staticmethod
    def _conditions(body: Body) -> list[Body]:
        return (body.get("status") or {}).get("conditions") or []

    def _take_over(self, namespace: str, route: Body) -> list[tuple[str, int]]:
        generation = route["metadata"]["generation"]
        parents = (route.get("status") or {}).get("parents") or []
        said = [condition.get("observedGeneration") for entry in parents for condition in entry["conditions"]]
        if not said or any(number != generation for number in said):
            states = [
                {"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": generation}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            parents = [
                {
                    "parentRef": ref,
                    "controllerName": "example.com/gateway",
                    "conditions": [state | {"lastTransitionTime": _THEN} for state in states],
                }
                for ref in route["spec"]["parentRefs"]
            ]
            path = routes(namespace, route["metadata"]["name"])
            self.api.merge(f"{path}/status", {"status": {"parents": parents}})
        return [(ref["name"], ref.get("weight", 1)) for ref in route["spec"]["rules"][0].get("backendRefs") or []]

    # -- the network

    def answer(self, host: str, model: str) -> tuple[int, str, str]:
        """(HTTP status, version, digest) of a request to this host for this model."""
        if host == URL.removeprefix("http://"):
            if self.hijacked:
                return 200, "", ""
            if model not in self.forces:
                return 404, "", ""
            live = [service for service, weight in self.forces[model] if weight > 0]
            if not live:
                return 500, "", ""
            service = f"{live[0]}.{model.partition('.')[0]}"
        else:
            service = host.partition(".svc")[0]
        return (200, *self.versions[service]) if service in self.versions else (503, "", "")

    def reached(self, request: web.Request) -> tuple[int, str, str, dict[str, str]]:
        """(HTTP status, version, digest, further headers) of this request."""
        return (*self.answer(request.host, request.match_info["model"]), {})

    def asked(self, request: web.Request) -> str:
        """``<namespace>.<model>`` that the request is for."""
        return request.match_info["model"]

    async def _metadata(self, request: web.Request) -> web.Response:
        return self._respond(request, {"name": self.asked(request), "parameters": {"exampleRequest": EXAMPLE}})

    async def _infer(self, request: web.Request) -> web.Response:
        assert await request.json() == EXAMPLE
        response = self._respond(request, {"outputs": []})
        if response.status == 200:
            digest = response.headers.get("fiduciary-digest", "")
            self.verify(request.headers.get("fiduciary-probe", ""), self.asked(request), digest)
        return response

    def _respond(self, request: web.Request, body: Body) -> web.Response:
        status, version, digest, further = self.reached(request)
        if status != 200:
            return web.Response(status=status)
        headers = {"fiduciary-version": version, "fiduciary-digest": digest, **further} if digest else {}
        return web.json_response(body, headers=headers)

    def verify(self, header: str, model: str, digest: str) -> None:
        """Count the probe by its signature, with the key of the operator's Secret."""
        if self._public is None:
            secret = self.api.get("/api/v1/namespaces/fiduciary-system/secrets/fiduciary-probe-key")
            private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret["data"]["privateKey"]))
            self._public = private.public_key()
        claim, _, signature = header.rpartition(".")
        namespace, _, name = model.partition(".")
        for named in (digest, "*"):
            try:
                raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
                self._public.verify(raw, f"{claim}.{namespace}.{name}.{named}".encode())
            except (InvalidSignature, ValueError):
                continue
            self.signed += 1
            return
        self.unsigned += 1


_THEN = "2026-01-01T00:00:00Z"


class _Grpc(grpc.GenericRpcHandler):
    """ModelInfer through the Gateway."""

    def __init__(self, node: ServingNode) -> None:
        self._node = node

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._infer)

    async def _infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        model = str(metadata.get("fiduciary-model", ""))
        status, version, digest = self._node.answer(URL.removeprefix("http://"), model)
        if status != 200:
            await context.abort(grpc.StatusCode.UNKNOWN, f"the gateway answered {status}")
        self._node.verify(str(metadata.get("fiduciary-probe", "")), model, digest)
        parameters = {"version": version, "digest": digest}
        return b"".join(
            b"\x22" + _bytes(b"\x0a" + _bytes(name) + b"\x12" + _bytes(b"\x1a" + _bytes(value)))
            for name, value in parameters.items()
        )


def _bytes(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    assert len(raw) < 128
    return bytes([len(raw)]) + raw
