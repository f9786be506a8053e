"""Asking a model server as a client would: the example of its metadata, sent back for a real prediction.

A probe is an ordinary request of the Open Inference Protocol with a signed header, on a connection of its own, so that
it sees what a new client would see: no pool, no proxy of the environment, no cookie, no redirect. What comes back is
reduced to who answered and how it went. Whoever took the route may answer anything, so no body is believed or kept.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import aiohttp

from fiduciary.clients import grpc, oip
from fiduciary.clients.probekey import HEADER
from fiduciary.clients.unreachable import why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fiduciary.clients.probekey import ProbeKey
    from fiduciary.serving.observed import ProbeTarget

VERSION, DIGEST = "fiduciary-version", "fiduciary-digest"

#: Seldon's mesh: whom to ask, and who answered.
MESH_MODEL, MESH_ROUTE = "seldon-model", "x-seldon-route"

#: How gRPC says 404: Envoy answers so, in an HTTP 200, where no route takes a call. A model's server knows the method.
UNIMPLEMENTED = 12

#: What an answer or an example may weigh; more is not read.
MAX_BODY = 1 << 20

Example = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request went. ``status`` is HTTP's, 404 where gRPC says the same; None: none came, or it was gRPC's."""

    ok: bool
    status: int | None = None
    version: str = ""
    digest: str = ""
    message: str = ""
    latency_s: float = 0.0
    route: str = ""  # of a mesh: which of its models answered


class NoExample(Exception):
    """The metadata could not be read; ``answer`` says how it went."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


class InferenceClient:
    """Probes model servers over REST and gRPC.

    ``authorities`` are files with the CA of addresses (``https://host[:port]``) whose certificate is private.
    ``connector`` makes the way to the network; tests make one that finds cluster names on the loopback.
    """

    def __init__(
        self,
        key: ProbeKey | None,
        *,
        timeout: float = 5.0,
        authorities: Mapping[str, str] | None = None,
        connector: Callable[[], aiohttp.BaseConnector] = lambda: aiohttp.TCPConnector(force_close=True, limit=0),
        resolve: Callable[[str, int], tuple[str, int]] = lambda host, port: (host, port),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._timeout = timeout
        self._authorities = authorities or {}
        self._tls: dict[tuple[str, str], ssl.SSLContext] = {}
        self._make_connector = connector
        self._resolve = resolve
        self._now = now
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def example(self, target: ProbeTarget) -> Example:
        """The request that the model's metadata shows. Raises :class:`NoExample` where there is no such answer."""
        url = target.example_url or rest_url(target)
        started = time.perf_counter()
        try:
            status, headers, body = await self._request("GET", url, target, {})
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoExample(self._unanswered(error, url, started)) from error
        answer = _judge(status, headers, started)
        if not answer.ok:
            raise NoExample(answer)
        try:
            example = json.loads(body)["parameters"]["exampleRequest"]
            assert isinstance(example["inputs"], list)
        except (ValueError, KeyError, TypeError, AssertionError):
            message = "the model's metadata shows no example request (parameters.exampleRequest)"
            raise NoExample(Answer(False, status, answer.version, answer.digest, message)) from None
        return cast("Example", example)

    async def infer(self, target: ProbeTarget, example: Example) -> Answer:
        """One signed prediction; never raises for what a network or a server can do."""
        started = time.perf_counter()
        url = target.url
        try:
            if target.protocol == "grpc":
                return await self._grpc(target, example, started)
            url = rest_url(target) + "/infer"
            status, headers, _ = await self._request("POST", url, target, self._signature(target), example)
        except (aiohttp.ClientError, OSError, ValueError, grpc.GrpcError) as error:  # TimeoutError is an OSError
            return self._unanswered(error, url, started)
        return _judge(status, headers, started)

    async def _request(
        self, method: str, url: str, target: ProbeTarget, headers: Mapping[str, str], body: Example | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        host = {"Host": target.host} if target.host and target.example_url != url else {}
        host |= told(target, url)
        tls = self._tls_of(url, "http/1.1")
        async with self._session().request(
            method,
            url,
            json=body,
            headers={**headers, **host},
            allow_redirects=False,
            ssl=tls if tls is not None else True,
            server_hostname=host["Host"].partition(":")[0] if "Host" in host and url.startswith("https:") else None,
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_BODY:
                    raise ValueError(f"the answer is larger than {MAX_BODY} bytes")
            return response.status, response.headers, bytes(content)

    async def _grpc(self, target: ProbeTarget, example: Example, started: float) -> Answer:
        parts = urlsplit(target.url)
        secure = parts.scheme == "https"
        host, port = self._resolve(parts.hostname or "", parts.port or (443 if secure else 80))
        tls = self._tls_of(target.url, "h2")
        async with asyncio.timeout(self._timeout):
            reply = await grpc.unary(
                host,
                port,
                oip.MODEL_INFER,
                oip.infer_request(target.model, example),
                authority=target.host or parts.netloc,
                metadata={"fiduciary-model": target.model, **self._signature(target)},
                tls=tls,
                server_name=(target.host or parts.hostname or "").partition(":")[0],
            )
        latency = time.perf_counter() - started
        if reply.status != 0:
            message = printable(reply.message) or f"gRPC status {reply.status}"
            status = reply.http if reply.http != 200 else 404 if reply.status == UNIMPLEMENTED else None
            return Answer(False, status, message=message, latency_s=latency)
        version, parameters = oip.infer_response(reply.body)
        digest = parameters.get("digest", "")
        if not digest:
            return Answer(False, None, message=_FOREIGN, latency_s=latency)
        return Answer(True, None, parameters.get("version") or version, digest, latency_s=latency)

    def _unanswered(self, error: Exception, url: str, started: float) -> Answer:
        parts = urlsplit(url)
        late = f"no answer within {self._timeout:g} s"
        what = late if isinstance(error, TimeoutError) else printable(why(error))
        latency = time.perf_counter() - started
        return Answer(False, None, message=f"{parts.scheme}://{parts.netloc}: {what}", latency_s=latency)

    def _signature(self, target: ProbeTarget) -> dict[str, str]:
        if self._key is None:
            return {}
        namespace, _, model = target.model.partition(".")
        return {HEADER: self._key.header(namespace, model, target.digest, self._now())}

    def _tls_of(self, url: str, protocol: str) -> ssl.SSLContext | None:
        """How to trust this address; a context of its own for each protocol, since it is offered in the handshake."""
        parts = urlsplit(url)
        if parts.scheme != "https":
            return None
        address = f"{parts.scheme}://{parts.netloc}"
        tls = self._tls.get((address, protocol))
        if tls is None:
            tls = self._tls[address, protocol] = ssl.create_default_context(cafile=self._authorities.get(address))
            tls.set_alpn_protocols([protocol])
        return tls

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=self._make_connector(),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._http


_FOREIGN = "an answer came, but not from a model server of this operator: it names neither version nor digest"


def rest_url(target: ProbeTarget) -> str:
    """URL of the model over REST; of a gRPC target's REST sibling, where its example comes from."""
    path = f"/v2/models/{target.served or target.model}"
    return target.url if target.url.endswith(path) else target.url.rstrip("/") + path


def told(target: ProbeTarget, url: str) -> dict[str, str]:
    """Headers that tell a mesh whom to ask. The example may be of another of its models, which goes by its own name."""
    headers = dict(target.headers)
    if target.example_url == url and MESH_MODEL in headers:
        return {MESH_MODEL: url.rpartition("/")[2]}
    return headers


def printable(text: str, limit: int = 200) -> str:
    """Somebody else's text, fit for a condition: one line, no control characters, not long."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    return " ".join(line.split())[:limit]


def _judge(status: int, headers: Mapping[str, str], started: float) -> Answer:
    version, digest = printable(headers.get(VERSION, ""), 64), printable(headers.get(DIGEST, ""), 80)
    route, latency = printable(headers.get(MESH_ROUTE, ""), 80).strip(":"), time.perf_counter() - started
    if status != 200:
        return Answer(False, status, version, digest, f"HTTP {status}", latency, route)
    if not digest or not version:
        return Answer(False, status, version, digest, _FOREIGN, latency, route)
    return Answer(True, status, version, digest, "", latency, route)
