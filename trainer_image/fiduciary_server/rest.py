"""The Open Inference Protocol over HTTP, as one small ASGI application in the place of MLServer's FastAPI one.

MLServer's spends more on routing, middleware and validating each message against a schema twice than the model takes
(``docs/serving-runtime.md`` has the measurement), answers 422 with its own words, makes metric series out of what
callers write, and lets anybody unload a model. Here are the parts of the protocol that a served version has, no more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from mlserver.errors import MLServerError
from mlserver.logging import logger

from fiduciary_server.errors import BadRequest
from fiduciary_server.probes import HEADER as PROBE
from fiduciary_server.runtime import LONGEST_ID, Asked
from fiduciary_server.tensors import Tensor, quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from fiduciary_server.life import Life
    from fiduciary_server.runtime import FiduciaryRuntime, Output

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

LONGEST_BODY = 4 << 20
"""Bytes, as gRPC's usual limit: some ten thousand rows."""

_MOST_DISCARDED = 64 << 20
"""Bytes of a too long body that are read and thrown away, so that the client reads the answer and not a broken pipe."""

APART_FROM = 64 << 10
"""Bytes of a body from which a request is worked on in a thread: while it is parsed, others are still answered."""

_PROBE = PROBE.encode()
_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")


class Rest:
    """The ASGI application.

    Args:
        runtime: what is served; its attributes are there once ``life`` says that it is loaded.
        life: whether the server is loading, ready or draining.
    """

    def __init__(self, runtime: FiduciaryRuntime, life: Life) -> None:
        self._runtime = runtime
        self._life = life
        serving = runtime.serving
        self._own = (
            (b"fiduciary-version", serving.version.encode()),
            (b"fiduciary-digest", serving.digest.encode()),
        )
        base = f"/v2/models/{serving.name}"
        self._model = {base: None, f"{base}/versions/{serving.version}": None}
        self._infer = {f"{path}/infer" for path in self._model}
        self._ready = {f"{path}/ready" for path in self._model}
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in self._infer:
            if scope["method"] == "POST":
                await self._answer_inference(scope, receive, send)
            else:
                await self._send(send, 405, _error("inference is a POST"), ((b"allow", b"POST"),))
        elif scope["method"] not in ("GET", "HEAD"):
            await self._not_found(path, send)
        elif path == "/v2/health/live":
            await self._send(send, 200, b"{}")
        elif path == "/v2/health/ready" or path in self._ready:
            ready = self._life.ready
            await self._send(send, 200 if ready else 503, b"{}" if ready else _error(self._life.why_not))
        elif path in self._model:
            await self._metadata(send)
        elif path == "/v2":
            await self._send(send, 200, orjson.dumps(self._life.server_metadata))
        else:
            await self._not_found(path, send)

    async def _answer_inference(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._life.loaded:
            await self._send(send, 503, _error(self._life.why_not), self._own)
            return
        runtime, headers = self._runtime, dict(scope["headers"])
        probe = runtime.probes.signed(_text(headers.get(_PROBE)))
        with runtime.metrics.request("rest", probe) as counted:
            try:
                body = await _body(headers, receive)
                trace = _text(headers.get(b"x-request-id"))
                if len(body) < APART_FROM:
                    content, identity = self._predict(body, probe is None, trace)
                else:
                    apart = asyncio.get_running_loop().run_in_executor
                    content, identity = await apart(runtime.apart, self._predict, body, probe is None, trace)
                counted.outcome = "success"
                status, extra = 200, (*self._own, (b"fiduciary-prediction-id", identity))
            except MLServerError as error:
                status, content, extra = error.status_code, _error(str(error)), self._own
                counted.outcome = "client_error" if status < 500 else "server_error"
                if status >= 500:
                    logger.error("%s", error)
            except _Gone:
                counted.outcome = "client_error"
                return
            except asyncio.CancelledError:
                counted.outcome = "client_error"
                raise
            except Exception:  # a bug of ours: the log has it, the client does not
                logger.exception("an inference request failed")
                status, content, extra = 500, _error("internal error; the server's log has it"), self._own
        # Counted before it is sent: a scrape that follows the answer sees it.
        await self._send(send, status, content, extra)

    def _predict(self, body: bytes, live: bool, trace: str | None) -> tuple[bytes, bytes]:
        """The answer's body and the prediction's id."""
        asked = _parse(body, trace)
        answer = self._runtime.answer(asked, live=live)
        serving = self._runtime.serving
        document = {
            "model_name": serving.name,
            "model_version": serving.version,
            "outputs": [_tensor(each) for each in answer.outputs],
            "parameters": self._runtime.parameters(answer),
        }
        if asked.identity:
            document["id"] = asked.identity
        return orjson.dumps(document), answer.prediction_id.encode()

    async def _metadata(self, send: Send) -> None:
        if not self._life.loaded:
            await self._send(send, 503, _error(self._life.why_not), self._own)
            return
        document = (await self._runtime.metadata()).model_dump()
        await self._send(send, 200, orjson.dumps(document), self._own)

    async def _not_found(self, path: str, send: Send) -> None:
        serving = self._runtime.serving
        _, *parts = path.split("/")
        message = f"nothing is at {quoted(path)}; expected {self._base}, {self._base}/infer or {self._base}/ready"
        if parts[:2] == ["v2", "models"] and len(parts) > 2:
            if parts[2] != serving.name:
                message = f"model {quoted(parts[2])} is not served here; this is {serving.name}"
            elif parts[3:4] == ["versions"] and parts[4:5] != [serving.version]:
                asked = quoted("".join(parts[4:5]))
                message = f"version {asked} of {serving.name} is not served here; this is version {serving.version}"
        await self._send(send, 404, _error(message), self._own)

    async def _send(self, send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        headers = [_JSON, (b"content-length", b"%d" % len(body)), *extra]
        if self._life.draining:
            # The client's next request goes to another connection, and so to a pod that stays.
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _tensor(output: Output) -> dict[str, Any]:
    tensor = {"name": output.name, "datatype": "FP32", "shape": output.shape, "data": output.data}
    return tensor if output.levels is None else {**tensor, "parameters": {"levels": output.levels}}


class _Gone(Exception):
    """The client left before its request was read."""


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"")
    size = int(length) if length.isdigit() else 0
    encoding = headers.get(b"content-encoding", b"identity").lower()
    parts: list[bytes] = []
    seen, more = 0, True
    while more and seen <= _MOST_DISCARDED:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        seen += len(part)
        if max(size, seen) <= LONGEST_BODY:
            parts.append(part)
        else:
            parts.clear()
        more = message.get("more_body", False)
    if max(size, seen) > LONGEST_BODY:
        raise BadRequest(
            f"the body has {max(size, seen)} bytes; at most {LONGEST_BODY} are taken: send fewer rows at a time", 413
        )
    if encoding != b"identity":
        raise BadRequest(f"content-encoding is {quoted(_text(encoding))}; expected a body that is not compressed", 415)
    if b"inference-header-content-length" in headers:
        raise BadRequest("the binary tensor extension is not served over HTTP; send JSON, or use gRPC", 415)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _parse(body: bytes, trace: str | None) -> Asked:
    """The request, with the kinds of everything that is read later."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON (which has neither NaN nor Infinity): {str(error)[:200]}") from None
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise BadRequest('the body is not {"inputs": [{"name", "datatype", "shape", "data"}, ...]}')
    identity, outputs = document.get("id"), document.get("outputs") or ()
    if not isinstance(identity, (str, type(None))):
        raise BadRequest(f"id is {quoted(identity)}; expected a string")
    try:
        tensors = [
            Tensor(given["name"], given["datatype"], given["shape"], given["data"]) for given in document["inputs"]
        ]
        wanted = [each["name"] for each in outputs]
    except (TypeError, KeyError):
        raise BadRequest('an input is no {"name", "datatype", "shape", "data"}, or an output no {"name"}') from None
    if not all(isinstance(tensor.name, str) and isinstance(tensor.shape, list) for tensor in tensors):
        raise BadRequest("an input's name is no string, or its shape no array")
    return Asked(tensors, identity, wanted, None if trace is None else trace[:LONGEST_ID])


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message})
