"""MLflow over REST 2.0: the dozen calls that the operator needs, with the server's odd answers named.

MLflow is a mirror that anybody may write and that may be away for hours, so every failure carries a reason that a
condition can show, nothing is waited for longer than ``timeout``, and at most ``in_flight`` calls run at once (a
server on SQLite answers 16 writers in seconds instead of milliseconds). The contract test runs each call against a
real server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import aiohttp

from fiduciary.clients.unreachable import why
from fiduciary.decide.world import RunView, VersionView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Reason = Literal["RegistryUnreachable", "RegistryHostRejected", "RegistryUnauthorized", "RegistryRefused"]

TAG_KEY = "fiduciary.dev/training-key"
TAG_DIGEST = "fiduciary.dev/digest"
TAG_PROGRESS = "fiduciary.dev/progress"
TAG_RESULT = "fiduciary.dev/result"

#: A manifest lists a handful of files; whatever is larger than this is not one.
MAX_ARTIFACT = 1 << 20

#: Anybody may write tags, of up to 8 KB each: an answer of the API that is larger than this is not read on.
MAX_ANSWER = 16 << 20


class RegistryError(Exception):
    """MLflow did not do what was asked. ``reason`` and the message are fit for a condition."""

    def __init__(self, reason: Reason, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.code = code  # MLflow's error_code, e.g. RESOURCE_DOES_NOT_EXIST

    @property
    def missing(self) -> bool:
        """The object does not exist; a missing alias is answered with 400 instead of 404."""
        return self.code == "RESOURCE_DOES_NOT_EXIST" or (
            self.code == "INVALID_PARAMETER_VALUE" and "alias" in self.message and "not found" in self.message
        )


class Registry:
    """One MLflow server.

    ``uri`` is its address (an entry of the operator's settings, never a user's text). ``token_file`` is read for each
    call, so that a rotated token needs no restart; its content never reaches a log or a message. ``observe`` is told
    of each call (name of the endpoint, HTTP status or 0) for the metrics. It is used inside one running event loop.
    """

    def __init__(
        self,
        uri: str,
        *,
        token_file: Path | None = None,
        timeout: float = 10.0,
        in_flight: int = 4,
        observe: Callable[[str, int], None] = lambda endpoint, status: None,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self.uri = uri.rstrip("/")
        self._token_file = token_file
        self._slots = asyncio.Semaphore(in_flight)
        self._observe = observe
        # No proxy of the environment may see the registry's traffic inside the cluster; cookies are nobody's.
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.close()

    async def run_for_key(self, experiment: str, training_key: str) -> RunView | None:
        """The newest run of ``experiment`` that trains ``training_key``; None where nobody started one yet."""
        try:
            found = await self._get("experiments/get-by-name", {"experiment_name": experiment})
        except RegistryError as error:
            if error.missing:
                return None
            raise
        query = {
            "experiment_ids": [found["experiment"]["experiment_id"]],
            "filter": f"tags.`{TAG_KEY}` = '{training_key}'",
            "order_by": ["attributes.start_time DESC"],
            "max_results": 1,
        }
        runs: list[dict[str, Any]] = (await self._call("POST", "runs/search", body=query, read=True)).get("runs", [])
        return _run(runs[0]) if runs else None

    async def version_by_digest(self, model: str, digest: str) -> VersionView | None:
        """The version of ``model`` that carries the tag of this digest: registration looks here before it creates.

        Of several (two servers may have been restored into one) the oldest counts, so that the answer is stable.
        """
        filters = f"name='{model}' and tags.`{TAG_DIGEST}`='{digest}'"
        found = await self._get("model-versions/search", {"filter": filters, "max_results": "100"})
        versions: list[dict[str, Any]] = found.get("model_versions", [])
        return _version(min(versions, key=lambda item: int(item["version"]))) if versions else None

    async def aliases(self, model: str) -> dict[str, str]:
        """Alias -> version number of a registered model; empty where the model does not exist."""
        try:
            found = await self._get("registered-models/get", {"name": model})
        except RegistryError as error:
            if error.missing:
                return {}
            raise
        return {item["alias"]: str(item["version"]) for item in found["registered_model"].get("aliases", [])}

    async def ensure_model(self, model: str) -> None:
        """Create the registered model unless it exists."""
        try:
            await self._call("POST", "registered-models/create", body={"name": model})
        except RegistryError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    async def create_version(
        self, model: str, *, source: str, run_id: str, digest: str, tags: Mapping[str, str]
    ) -> VersionView:
        """Create a version with its digest tag in one call: a version without it would be made again after a crash."""
        body: dict[str, Any] = {"name": model, "source": source, "run_id": run_id}
        body["tags"] = [{"key": key, "value": value} for key, value in sorted({**tags, TAG_DIGEST: digest}.items())]
        created = await self._call("POST", "model-versions/create", body=body)
        return _version(created["model_version"])

    async def set_version_tag(self, model: str, version: str, key: str, value: str) -> None:
        body = {"name": model, "version": version, "key": key, "value": value}
        await self._call("POST", "model-versions/set-tag", body=body)

    async def version_tags(self, model: str, version: str) -> dict[str, str]:
        """Tags of one version; empty where it was deleted."""
        try:
            found = await self._get("model-versions/get", {"name": model, "version": version})
        except RegistryError as error:
            if error.missing:
                return {}
            raise
        return dict(_version(found["model_version"]).tags)

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point ``alias`` at ``version``. Last writer wins: MLflow has no precondition."""
        await self._call("POST", "registered-models/alias", body={"name": model, "alias": alias, "version": version})

    async def delete_alias(self, model: str, alias: str) -> None:
        """Take ``alias`` away; one that is not there, or a model that is not there, is as good as done."""
        try:
            await self._call("DELETE", "registered-models/alias", body={"name": model, "alias": alias})
        except RegistryError as error:
            if not error.missing:
                raise

    async def artifact(self, run_id: str, path: str, most: int = MAX_ARTIFACT) -> bytes | None:
        """Bytes of one artifact of a run, ``most`` at most, through the server; None where it does not exist.

        The server resolves the location itself, so this works for proxied and for bucket artifact roots alike.
        """
        try:
            params = {"run_uuid": run_id, "path": path}
            return await self._send("GET", "/get-artifact", params=params, read=True, most=most)
        except RegistryError as error:
            if error.missing:
                return None
            raise

    async def manifest_digest(self, run_id: str) -> str | None:
        """``sha256:...`` of ``version/manifest.json`` as MLflow serves it now; None where there is none."""
        content = await self.artifact(run_id, "version/manifest.json")
        return None if content is None else "sha256:" + hashlib.sha256(content).hexdigest()

    async def _get(self, endpoint: str, params: Mapping[str, str]) -> dict[str, Any]:
        return await self._call("GET", endpoint, params=params, read=True)

    async def _call(
        self,
        method: str,
        endpoint: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        read: bool = False,
    ) -> dict[str, Any]:
        content = await self._send(method, f"/api/2.0/mlflow/{endpoint}", params=params, body=body, read=read)
        try:
            answer: object = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = content[:80].decode(errors="replace")
            message = f"{self.uri} answered {text!r} to {endpoint}, expected JSON: is this the address of MLflow?"
            raise RegistryError("RegistryRefused", message)
        return cast("dict[str, Any]", answer)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        read: bool = False,
        most: int = MAX_ANSWER,
    ) -> bytes:
        """One call; a read is tried twice, because a single lost packet should not show in a condition.

        No more than ``most`` bytes of an answer are read: whoever trains may have written it.
        """
        try:
            return await self._once(method, path, params, body, most)
        except RegistryError as error:
            if not read or error.reason != "RegistryUnreachable":
                raise
        await asyncio.sleep(random.uniform(0.2, 0.6))
        return await self._once(method, path, params, body, most)

    async def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, body: Mapping[str, Any] | None, most: int
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self._token()}"} if self._token_file else {}
        status = 0
        try:
            async with (
                self._slots,
                self._http.request(method, self.uri + path, params=params, json=body, headers=headers) as response,
            ):
                status = response.status
                content = bytearray()
                async for part in response.content.iter_chunked(1 << 16):
                    content += part
                    if len(content) > most:
                        told = "" if params is None else " ".join(params.values())
                        message = f"{self.uri}{path} {told}: more than {most} bytes, expected at most {most}"
                        raise RegistryError("RegistryRefused", message)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"no answer from {self.uri} ({why(error)}); what is decided does not change, it is tried again"
            raise RegistryError("RegistryUnreachable", message) from error
        finally:
            self._observe(path.rpartition("mlflow/")[2].lstrip("/"), status)
        if status < 300:
            return bytes(content)
        raise self._refusal(status, content.decode(errors="replace"))

    def _token(self) -> str:
        assert self._token_file is not None
        try:
            return self._token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            message = f"the token of {self.uri} cannot be read from {self._token_file}: {error.strerror}"
            raise RegistryError("RegistryUnauthorized", message) from error

    def _refusal(self, status: int, text: str) -> RegistryError:
        try:
            answer: object = json.loads(text)
        except ValueError:
            answer = None
        fields = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
        code, detail = str(fields.get("error_code", "")), str(fields.get("message", text[:200]))
        host = urlsplit(self.uri).netloc
        if status == 403 and "Invalid Host header" in text:
            message = f"{self.uri} refuses the host name {host}: start MLflow with --allowed-hosts '{host}'"
            return RegistryError("RegistryHostRejected", message)
        if status in (401, 403):
            message = f"{self.uri} answered {status}: {detail}; check the connection's token in the operator's settings"
            return RegistryError("RegistryUnauthorized", message)
        if status in (408, 429) or status >= 500:
            return RegistryError("RegistryUnreachable", f"{self.uri} answered {status}: {detail}", code=code)
        return RegistryError("RegistryRefused", f"{self.uri} answered {status} {code}: {detail}", code=code)


def _run(run: dict[str, Any]) -> RunView:
    tags = {item["key"]: item["value"] for item in run.get("data", {}).get("tags", [])}
    return RunView(
        run_id=run["info"]["run_id"],
        status=run["info"]["status"],
        progress=_json_tag(tags.get(TAG_PROGRESS)),
        result=_json_tag(tags.get(TAG_RESULT)),
    )


def _json_tag(text: str | None) -> Mapping[str, Any] | None:
    """Anyone may write tags: what is no JSON object is as good as missing."""
    if text is None:
        return None
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _version(version: dict[str, Any]) -> VersionView:
    return VersionView(
        version=str(version["version"]),
        run_id=str(version.get("run_id", "")),
        source=str(version.get("source", "")),
        tags={item["key"]: item.get("value", "") for item in version.get("tags", [])},
    )
