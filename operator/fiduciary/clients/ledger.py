"""The outcome scorer's HTTP API, as far as the operator uses it: heads and rows of ledgers, their begin and their end.

Each namespace with models has a scorer of its own. What it answers is checked (see :mod:`.ledger_answers`); nothing is
asked twice here, since the next poll asks anyway and every write can be repeated.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from fiduciary.clients import ledger_answers
from fiduciary.clients.ledger_answers import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fiduciary.clients.ledger_answers import Head, Page

MAX_BYTES = 16 << 20
PAGE = 500


class Scorers:
    """Every namespace's scorer. ``address`` holds ``{namespace}``, e.g. ``http://fiduciary-outcomes.{namespace}.svc:8080``.

    ``token_file`` is read for each request: a projected token is renewed in place. Its content never reaches a log.
    ``observe`` is told of each request (what, HTTP status, 0 where no answer came).
    """

    def __init__(
        self,
        address: str,
        *,
        token_file: Path | None = None,
        timeout: float = 10.0,
        max_bytes: int = MAX_BYTES,
        observe: Callable[[str, int], None] = lambda what, status: None,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self._address = address.rstrip("/")
        self._token_file = token_file
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
        status, tag, body = await self._ask("heads", "GET", url, headers)
        if status == 304:
            return None
        if status != 200:
            raise ledger_answers.refusal(url, status, body)
        return tag, ledger_answers.heads(url, body)

    async def page(self, namespace: str, name: str, after: str = "") -> Page:
        """Rows of the sessions after ``after``, oldest first."""
        url = self._url(namespace, f"/{name}")
        query = f"?limit={PAGE}" + (f"&after={after}" if after else "")
        status, _, body = await self._ask("rows", "GET", url + query, {})
        if status != 200:
            raise ledger_answers.refusal(url, status, body)
        return ledger_answers.page(url, body)

    async def define(self, namespace: str, name: str, definition: Mapping[str, Any]) -> None:
        """Begin a ledger. The same again changes nothing; another content under its name is ``LedgerExists``."""
        await self._put("define", self._url(namespace, f"/{name}"), definition)

    async def end(self, namespace: str, name: str, last_session: str) -> None:
        """No session after ``last_session`` is closed into the ledger."""
        document = {"contractVersion": ledger_answers.CONTRACT_VERSION, "lastSession": last_session}
        await self._put("end", self._url(namespace, f"/{name}/end"), document)

    async def _put(self, what: str, url: str, document: Mapping[str, Any]) -> None:
        content = json.dumps(document, ensure_ascii=False).encode()
        status, _, body = await self._ask(what, "PUT", url, {"Content-Type": "application/json"}, content)
        if status != 200:
            raise ledger_answers.refusal(url, status, body)

    async def _ask(
        self, what: str, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> tuple[int, str, bytes]:
        """(status, ETag, body)."""
        sent = {"Accept": "application/json", **headers, **self._authorization()}
        status = 0
        try:
            async with self._http.request(method, url, headers=sent, data=content, allow_redirects=False) as response:
                status = response.status
                return status, response.headers.get("ETag", ""), await self._read(url, response)
        except TimeoutError as error:
            raise LedgerError("ScorerTimeout", f"{url} gave no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            told = str(error) or type(error).__name__
            raise LedgerError("ScorerUnreachable", f"{url} cannot be reached: {told}") from error
        finally:
            self._observe(what, status)

    def _url(self, namespace: str, path: str) -> str:
        return f"{self._address.replace('{namespace}', namespace)}/v1/ledgers{path}"

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            message = f"the token in {self._token_file} cannot be read: {type(error).__name__}"
            raise LedgerError("ScorerUnauthorized", message) from None
        return {"Authorization": f"Bearer {token}"}

    async def _read(self, url: str, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_chunked(1 << 16):
            size += len(part)
            if size > self._max_bytes:
                raise LedgerError("ScorerTooLarge", f"{url} answered with more than {self._max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


def issued(token_file: Path) -> tuple[str, str] | None:
    """(issuer, subject) that a projected token says it is of; None where there is no such token.

    It is our own token and the API server's word: nothing is verified here, the scorer does that.
    """
    try:
        payload = token_file.read_text(encoding="utf-8").strip().split(".")[1]
        found: object = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (OSError, ValueError, IndexError, binascii.Error):
        return None
    claims = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    issuer, subject = claims.get("iss"), claims.get("sub")
    return (issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else None
