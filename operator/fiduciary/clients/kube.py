"""The API server as six verbs, and their one implementation over an aiohttp session.

Dictionaries on the wire; nothing here knows what the objects mean. Errors are typed, so that the engine can tell
"gone" from "somebody else was faster" from "come back later".
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

Body = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]

FIELD_MANAGER = "fiduciary"
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind live."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path below the server's address; without a namespace the collection of all namespaces."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


class KubeError(Exception):
    """An answer of the API server that is no success. ``status`` is the HTTP code, 0 where none came."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(KubeError):
    """404: the object, its namespace, or its kind does not exist."""


class Conflict(KubeError):
    """409: it exists already, it changed since it was read, or it is another object of the same name (UID)."""


class Invalid(KubeError):
    """400 or 422: this request will never be accepted as it is."""


class Forbidden(KubeError):
    """401 or 403: the operator's rights, an admission policy, or a namespace that terminates."""


class Unavailable(KubeError):
    """No answer, 429, or 5xx: worth another try."""


class WebhookSilent(Unavailable):
    """500: an admission webhook gives no answer and fails closed. Objects that it does not admit can be written, so
    whoever has several to write goes on. Not tried again at once: each try may wait for the webhook's timeout."""


@dataclass(frozen=True, slots=True)
class Token:
    """Of a ServiceAccount. ``lifetime`` is what was granted, which may be less than what was asked for."""

    text: str
    expires: datetime
    lifetime: timedelta

    def __repr__(self) -> str:  # no log and no traceback may show it
        return f"Token(expires={self.expires:%Y-%m-%dT%H:%M:%SZ})"


@dataclass(frozen=True, slots=True)
class Listing:
    """A LIST, whole: all chunks belong to one resourceVersion."""

    items: list[Body]
    resource_version: str


class Cluster(Protocol):
    """What the engine may do to a cluster."""

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False) -> Body:
        """Read one object past every cache."""
        ...

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        """Read all objects, in chunks; with ``metadata_only`` neither spec nor status is sent."""
        ...

    async def create(self, resource: Resource, body: Body) -> Body:
        """POST. :class:`Conflict` where the name is taken."""
        ...

    async def apply(self, resource: Resource, body: Body, *, manager: str = FIELD_MANAGER, force: bool = True) -> Body:
        """Server-side apply. With ``metadata.uid`` and ``resourceVersion`` set, only to that very object and state.

        Without ``force`` a field that somebody else owns and that would change is a :class:`Conflict`.
        """
        ...

    async def apply_status(self, resource: Resource, body: Body) -> Body:
        """Server-side apply of the status subresource; answers with the object's metadata alone."""
        ...

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, propagation: Propagation = "Background"
    ) -> None:
        """Delete the object that has this UID; another one of the same name is a :class:`Conflict`."""
        ...


class AiohttpCluster:
    """:class:`Cluster` over HTTP.

    ``session`` yields the session to use now: kopf replaces it after a 401. ``observe`` is told of each request
    (verb, resource kind, status code) for the metrics. 429 and 5xx are retried ``attempts`` times where the request
    may be repeated; a Retry-After that the server sends is kept.
    """

    def __init__(
        self,
        server: str,
        session: Callable[[], aiohttp.ClientSession],
        *,
        timeout: float = 30.0,
        attempts: int = 4,
        observe: Callable[[str, str, int], None] = lambda verb, kind, status: None,
    ) -> None:
        self._server = server.rstrip("/")
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._attempts = attempts
        self._observe = observe

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False) -> Body:
        accept = _ACCEPT_METADATA if metadata_only else _ACCEPT
        return await self._request("get", resource, resource.path(namespace, name), accept=accept)

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        items: list[Body] = []
        version = ""
        async for chunk in self._chunks(resource, namespace, labels, metadata_only):
            items.extend(chunk.get("items") or [])
            version = str(chunk["metadata"].get("resourceVersion", ""))
        for item in items:  # a LIST leaves these to its own header
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return Listing(items, version)

    async def create(self, resource: Resource, body: Body) -> Body:
        path = resource.path(body["metadata"].get("namespace"))
        params = {"fieldManager": FIELD_MANAGER}
        return await self._request("create", resource, path, params=params, body=body)

    async def apply(self, resource: Resource, body: Body, *, manager: str = FIELD_MANAGER, force: bool = True) -> Body:
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        params = {"fieldManager": manager, "force": str(force).lower()}
        return await self._request("apply", resource, path, params=params, body=body)

    async def apply_status(self, resource: Resource, body: Body) -> Body:
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], "status")
        return await self._request("apply_status", resource, path, params=_APPLY, body=body, accept=_ACCEPT_METADATA)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, propagation: Propagation = "Background"
    ) -> None:
        options: Body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        await self._request("delete", resource, resource.path(namespace, name), body=options)

    async def token(self, namespace: str, account: str, audience: str, seconds: int) -> Token:
        """TokenRequest: a token of this ServiceAccount that only ``audience`` takes."""
        body: Body = {
            "apiVersion": _TOKEN_REQUEST.api_version,
            "kind": _TOKEN_REQUEST.kind,
            "spec": {"audiences": [audience], "expirationSeconds": seconds},
        }
        path = _SERVICE_ACCOUNT.path(namespace, account, "token")
        answer = await self._request("create", _TOKEN_REQUEST, path, body=body)
        status, lifetime = answer["status"], timedelta(seconds=answer["spec"]["expirationSeconds"])
        return Token(status["token"], datetime.fromisoformat(status["expirationTimestamp"]), lifetime)

    async def raw(self, path: str) -> Body:
        """GET of a path that is no object: discovery, /version."""
        return await self._request("get", _DISCOVERY, path)

    async def _chunks(
        self, resource: Resource, namespace: str | None, labels: str, metadata_only: bool
    ) -> AsyncIterator[Body]:
        accept = _ACCEPT_METADATA_LIST if metadata_only else _ACCEPT
        params = {"limit": str(CHUNK)}
        if labels:
            params["labelSelector"] = labels
        while True:
            chunk = await self._request("list", resource, resource.path(namespace), params=params, accept=accept)
            yield chunk
            token = chunk["metadata"].get("continue")
            if not token:
                return
            params = {**params, "continue": token}

    async def _request(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: str = "application/json",
    ) -> Body:
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._once(verb, resource, path, params, body, accept)
            except WebhookSilent:
                raise
            except Unavailable as error:
                # A repeated POST that had arrived answers 409, which callers take for "done" by content.
                if attempt == self._attempts:
                    raise
                await asyncio.sleep(error.retry_after or 0.1 * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(
        self, verb: str, resource: Resource, path: str, params: Mapping[str, str] | None, body: Body | None, accept: str
    ) -> Body:
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = _APPLY_PATCH if verb.startswith("apply") else "application/json"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        status = 0
        try:
            async with self._session().request(
                _METHODS[verb], self._server + path, params=params, data=data, headers=headers, timeout=self._timeout
            ) as response:
                status = response.status
                content = await response.read()
                retry_after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise Unavailable(0, "Unreachable", f"{verb} {path}: no answer ({what})") from error
        except RuntimeError as error:  # aiohttp's answer when kopf replaced the session a moment ago
            raise Unavailable(0, "SessionClosed", f"{verb} {path}: {error}") from error
        finally:
            self._observe(verb, resource.kind, status)
        if status < 300:
            return json.loads(content)
        raise _error(status, content, f"{verb} {path}", retry_after)


_ACCEPT = "application/json"
_ACCEPT_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_ACCEPT_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY_PATCH = "application/apply-patch+yaml"
_APPLY = {"fieldManager": FIELD_MANAGER, "force": "true"}
_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "apply": "PATCH",
    "apply_status": "PATCH",
    "delete": "DELETE",
}
_SERVICE_ACCOUNT = Resource("v1", "ServiceAccount", "serviceaccounts")
_TOKEN_REQUEST = Resource("authentication.k8s.io/v1", "TokenRequest", "")
_DISCOVERY = Resource("v1", "Discovery", "", namespaced=False)
_WEBHOOK_SILENT = "failed calling webhook"
"""Kubernetes' own words (``ErrCallingWebhook``) for a webhook that did not answer; one that says no is a refusal."""


def _error(status: int, content: bytes, what: str, retry_after: str) -> KubeError:
    try:
        answer: Body = json.loads(content)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", content[:200].decode(errors="replace")
    text = f"{what}: {status} {reason} {message}".strip()
    wait = float(retry_after) if retry_after.isdigit() else 0.0
    if status == 404:
        return NotFound(status, reason, text)
    if status == 409:
        return Conflict(status, reason, text)
    if status in (401, 403):
        return Forbidden(status, reason, text)
    if _WEBHOOK_SILENT in message:
        return WebhookSilent(status, reason, f"{text}. Start what answers it, or look at its Service and certificate")
    if status == 429 or status >= 500:
        return Unavailable(status, reason, text, retry_after=wait)
    return Invalid(status, reason, text)
