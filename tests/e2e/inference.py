"""Clients of a model: what a user's program does with the endpoint that the status names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fiduciary.clients import oip
from sandbox import inference, load
from sandbox.inference import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Object

RATE, GRPC_RATE = 220.0, 20.0  # requests per second of an open-loop load


@dataclass(frozen=True, slots=True)
class Model:
    """One model behind the Gateway.

    name: <namespace>.<name>. path: /v2/models/<name>. headers: what the status says to send. http: a client of the
    Gateway as this machine reaches it.
    """

    name: str
    path: str
    headers: Mapping[str, str]
    http: httpx.Client

    @classmethod
    def of(cls, found: Object, http: httpx.Client) -> Model:
        """The endpoint of a FinancialModel's status."""
        endpoint = found["status"]["endpoint"]
        name = f"{found['metadata']['namespace']}.{found['metadata']['name']}"
        return cls(name, urlsplit(endpoint["url"]).path, {**inference.HEADERS, **endpoint.get("headers", {})}, http)

    def post(self, body: bytes | Mapping[str, Any], verb: str = "/infer") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(self.path + verb, content=content, headers=dict(self.headers))

    def predict(self, bars: Market) -> Prediction:
        answer = self.post(inference.body(bars))
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}"
        said = Prediction.of(answer.json())
        assert answer.headers["fiduciary-version"] == said.version, "header and body disagree on who answered"
        assert answer.headers["fiduciary-digest"] == said.digest
        return said

    def target(self, *requests: Market) -> load.Target:
        """The same requests for a load."""
        url = str(self.http.base_url).rstrip("/") + self.path + "/infer"
        return load.Target(url, tuple(inference.body(bars) for bars in requests), dict(self.headers), timeout=8.0)

    def grpc_target(self, *requests: Market) -> load.Target:
        """The same over gRPC: the metadata says which model, as the route wants it."""
        bodies = tuple(oip.infer_request(self.name, inference.document(bars)) for bars in requests)
        return load.Target(self.authority, bodies, self.metadata, timeout=8.0, grpc=True)

    @property
    def authority(self) -> str:
        """host:port of the Gateway."""
        url = self.http.base_url
        return f"{url.host}:{url.port or 80}"

    @property
    def metadata(self) -> dict[str, str]:
        return {"fiduciary-model": self.name}
