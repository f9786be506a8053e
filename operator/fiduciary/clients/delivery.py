"""Posting to a receiver that the operator's settings name: authentication, TLS, and every way in which it fails.

Addresses never come from a user's text. No redirect is followed and no proxy of the environment asked: what is sent
reaches whom the settings name, or nobody. Credentials are read from files for each request, so that a rotated Secret
needs no restart; they reach no log and no message, and neither does what a receiver answers.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from fiduciary.clients.unreachable import why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ANSWER_BYTES = 4096
"""Of an answer as much is read as lets the connection be used again; nobody looks at it."""
PATIENCE = (408, 425, 429)
"""Client errors that say: not now."""


class DeliveryError(Exception):
    """A receiver did not take what was sent. ``reason`` and message are fit for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is shown to a receiver: a bearer token, or a name and its password; a client certificate beside either."""

    token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Receiver:
    """One address. ``observe`` is told of each request (HTTP status, 0 where none came) for the metrics."""

    def __init__(
        self,
        address: str,
        credentials: Credentials | None = None,
        *,
        timeout: float = 10.0,
        observe: Callable[[int], None] = lambda status: None,
    ) -> None:
        self.address = address
        self._credentials = credentials or Credentials()
        self._seconds = timeout
        self._observe = observe
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(self._credentials)),
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.close()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Deliver one body. Raises :class:`DeliveryError` unless the answer is a success (2xx)."""
        status = 0
        try:
            sent = {**headers, **self._authorization()}
            async with self._http.post(self.address, data=body, headers=sent, allow_redirects=False) as response:
                status = response.status
                await response.content.read(ANSWER_BYTES)
        except TimeoutError as error:
            message = f"{self.address} gave no answer within {self._seconds:g} s"
            raise DeliveryError("ReceiverTimeout", message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DeliveryError("ReceiverUnreachable", f"{self.address} cannot be reached: {why(error)}") from error
        finally:
            self._observe(status)
        if not 200 <= status < 300:
            raise _refusal(self.address, status)

    def _authorization(self) -> dict[str, str]:
        its = self._credentials
        if its.token_file is not None:
            return {"Authorization": f"Bearer {self._read(its.token_file)}"}
        if its.password_file is not None:
            pair = f"{its.username}:{self._read(its.password_file)}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            message = f"the credentials for {self.address} in {path} cannot be read: {type(error).__name__}"
            raise DeliveryError("ReceiverUnauthorized", message) from None


def _tls(its: Credentials) -> ssl.SSLContext | bool:
    if its.ca_file is None and its.cert_file is None:
        return True
    context = ssl.create_default_context(cafile=None if its.ca_file is None else str(its.ca_file))
    if its.cert_file is not None:
        context.load_cert_chain(str(its.cert_file), None if its.key_file is None else str(its.key_file))
    return context


def _refusal(address: str, status: int) -> DeliveryError:
    if status in (401, 403):
        return DeliveryError("ReceiverUnauthorized", f"{address} answered {status}: correct its entry of the settings")
    if status < 400:
        return DeliveryError("ReceiverRefused", f"{address} answered {status}: redirects are not followed")
    if status >= 500 or status in PATIENCE:
        return DeliveryError("ReceiverUnreachable", f"{address} answered {status}; it is tried again")
    return DeliveryError("ReceiverRefused", f"{address} answered {status}: see its own log for why")
