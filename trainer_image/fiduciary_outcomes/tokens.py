"""Who asks: Kubernetes projected ServiceAccount tokens, verified against the API server's published keys."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import jwt

from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.logs import log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Role = Literal["records", "read", "outcomes", "ledgers", "define"]
ROLES: tuple[Role, ...] = ("records", "read", "outcomes", "ledgers", "define")
OPEN_ROLES: tuple[Role, ...] = ("records", "read")
"""Roles that may be left to a NetworkPolicy."""

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
LEEWAY = 10.0
AGAIN = 10.0
"""Seconds between two readings of the keys: a stranger with made-up key names cannot make us ask the API server."""

UNREADABLE = (OSError, ValueError, AttributeError, TypeError, KeyError, aiohttp.ClientError, jwt.PyJWTError)
"""What a document of keys that is away or malformed raises, by way of PyJWT too."""

MOST_KEYS = 64
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Keys:
    """Where the issuer's public keys are.

    Attributes:
        file: a JWKS document; or ``url`` of one, with the authority that signs its certificate and the token that the
            API server may ask for.
    """

    file: Path | None = None
    url: str = ""
    ca_file: Path | None = None
    token_file: Path | None = None

    async def read(self) -> bytes:
        if self.file is not None:
            return await asyncio.to_thread(self.file.read_bytes)
        headers: dict[str, str] = {}
        if self.token_file is not None:
            headers["Authorization"] = "Bearer " + (await asyncio.to_thread(self.token_file.read_text)).strip()
        tls = True if self.ca_file is None else await asyncio.to_thread(ssl.create_default_context, cafile=self.ca_file)
        timeout = aiohttp.ClientTimeout(total=5.0)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self.url, headers=headers, ssl=tls, allow_redirects=False) as answer,
        ):
            answer.raise_for_status()
            return await answer.content.read(MOST_BYTES)


@dataclass
class Verifier:
    """Checks tokens: signature, issuer, audience, times, subject.

    Attributes:
        subjects: allowed subjects of each role; None leaves a role open.
    """

    issuer: str
    audience: str
    keys: Keys
    subjects: Mapping[Role, frozenset[str] | None]
    _known: dict[str, Any] = field(default_factory=dict[str, Any])
    _read_at: float = -1e9
    _guard: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, role: Role, header: str | None) -> str:
        """The subject that asks; ``anonymous`` for an open role.

        Raises:
            Refused: 401 without a valid token, 403 where its subject is not on the role's list, 503 without keys.
        """
        allowed = self.subjects[role]
        if allowed is None:
            return "anonymous"
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized(f"no bearer token; expected one of audience {self.audience}")
        subject = await self._subject(token.strip())
        if subject not in allowed:
            raise Refused(
                "Forbidden",
                f"{subject:.200} may not do this; expected one of the {len(allowed)} subjects configured as {role}",
                403,
            )
        return subject

    async def _subject(self, token: str) -> str:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            raise _unauthorized(f"the token cannot be read: {error}") from None
        key = await self._key(str(kid))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise _unauthorized(
                f"the token is not valid: {error}; expected issuer {self.issuer}, audience {self.audience}, not expired"
            ) from None
        return str(claims["sub"])

    async def _key(self, kid: str) -> Any:
        if kid not in self._known:
            async with self._guard:
                if kid not in self._known and time.monotonic() - self._read_at >= AGAIN:
                    self._read_at = time.monotonic()
                    await self._read()
        if kid in self._known:
            return self._known[kid]
        if not self._known:
            raise Refused("KeysUnavailable", "the issuer's keys could not be read yet; send the same again", 503)
        raise _unauthorized(f"the token names the key {kid:.80}, which the issuer does not publish")

    async def _read(self) -> None:
        """Keys that are known stay known while the issuer cannot be reached."""
        try:
            document = json.loads(await self.keys.read())
            found = jwt.PyJWKSet.from_dict(document).keys[:MOST_KEYS]
        except UNREADABLE as error:
            log("warning", "the issuer's keys cannot be read", error=error)
            return
        self._known = {str(key.key_id): key for key in found if key.public_key_use in (None, "sig")}


def _unauthorized(message: str) -> Refused:
    return Refused("Unauthorized", message, 401)
