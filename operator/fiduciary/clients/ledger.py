"""The outcome scorer's HTTP API, as far as the operator uses it: heads and rows of ledgers, their begin and their end.

Each namespace with models has a scorer of its own. What it answers is checked (see :mod:`.ledger_answers`); nothing is
asked twice here, since the next poll asks anyway and every write can be repeated.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp

from fiduciary.clients import ledger_answers
from fiduciary.clients.ledger_answers import LedgerError
from fiduciary.clients.tokens import TokenError
from fiduciary.clients.unreachable import why

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fiduciary.clients.ledger_answers import Head, Page

MAX_BYTES = 16 << 20
PAGE = 500
_JSON = {"Content-Type": "application/json"}


class Scorers:
    """Every namespace's scorer. ``address`` holds ``{namespace}``, e.g. ``http://fiduciary-outcomes.{namespace}.svc:8080``.

    ``token`` yields what to show to the scorer of a namespace: that is in its tenant's hands, so no other may take it.
    ``observe`` is told of each request (what, HTTP status, 0 where no answer came).
    """

    def __init__(
        self,
        address: str,
        *,
        token: Callable[[str], Awaitable[str]] | None = None,
        timeout: float = 10.0,
        max_bytes: int = MAX_BYTES,
        observe: Callable[[str, int], None] = lambda what, status: None,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self._address = address.rstrip("/")
        self._token = token
        self._seconds = timeout
        self._max_bytes = max_bytes
        self._observe = observe
        # No proxy of the environment may see the traffic inside the cluster; cookies are nobody's.
        self._http = aiohttp.ClientSession(
            connector=connector or aiohttp.TCPConnector(),
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.close()

    async def heads(self, namespace: str, tag: str = "") -> tuple[str, tuple[Head, ...]] | None:
        """(tag, every ledger's head); None where nothing changed since the answer with ``tag``.

        Raises :class:`LedgerError`, as everything here.
        """
        url = self._url(namespace, "")
        headers = {"If-None-Match": tag} if tag else {}
        status, tag, body = await self._ask("heads", "GET", namespace, url, headers)
        if status == 304:
            return None
        if status != 200:
            raise ledger_answers.refusal(url, status, body)
        return tag, ledger_answers.heads(url, body)

    async def page(self, namespace: str, name: str, after: str = "") -> Page:
        """Rows of the sessions after ``after``, oldest first."""
        url = self._url(namespace, f"/{name}")
        query = f"?limit={PAGE}" + (f"&after={after}" if after else "")
        status, _, body = await self._ask("rows", "GET", namespace, url + query, {})
        if status != 200:
            raise ledger_answers.refusal(url, status, body)
        return ledger_answers.page(url, body)

    async def define(self, namespace: str, name: str, definition: Mapping[str, Any]) -> None:
        """Begin a ledger. The same again changes nothing; another content under its name is ``LedgerExists``."""
        await self._put("define", namespace, f"/{name}", definition)

    async def end(self, namespace: str, name: str, last_session: str) -> None:
        """No session after ``last_session`` is closed into the ledger."""
        document = {"contractVersion": ledger_answers.CONTRACT_VERSION, "lastSession": last_session}
        await self._put("end", namespace, f"/{name}/end", document)

    async def _put(self, what: str, namespace: str, path: str, document: Mapping[str, Any]) -> None:
        url = self._url(namespace, path)
        content = json.dumps(document, ensure_ascii=False).encode()
        status, _, body = await self._ask(what, "PUT", namespace, url, _JSON, content)
        if status != 200:
            raise ledger_answers.refusal(url, status, body)

    async def _ask(
        self, what: str, method: str, namespace: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> tuple[int, str, bytes]:
        """(status, ETag, body)."""
        sent = {"Accept": "application/json", **headers, **await self._authorization(namespace)}
        status = 0
        try:
            async with self._http.request(method, url, headers=sent, data=content, allow_redirects=False) as response:
                status = response.status
                return status, response.headers.get("ETag", ""), await self._read(url, response)
        except TimeoutError as error:
            raise LedgerError("ScorerTimeout", f"{url} gave no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LedgerError("ScorerUnreachable", f"{url} cannot be reached: {why(error)}") from error
        finally:
            self._observe(what, status)

    def _url(self, namespace: str, path: str) -> str:
        return f"{self._address.replace('{namespace}', namespace)}/v1/ledgers{path}"

    async def _authorization(self, namespace: str) -> dict[str, str]:
        if self._token is None:
            return {}
        try:
            return {"Authorization": f"Bearer {await self._token(namespace)}"}
        except TokenError as error:
            raise LedgerError("ScorerUnauthorized", str(error)) from error

    async def _read(self, url: str, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(1 << 16):
            size += len(part)
            if size > self._max_bytes:
                raise LedgerError("ScorerTooLarge", f"{url} answered with more than {self._max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)
