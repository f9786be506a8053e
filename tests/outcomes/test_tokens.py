"""Who may write: tokens as the API server signs them, and forgeries."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from fiduciary_outcomes import tokens
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.tokens import Keys, Verifier
from tests.outcomes.issuer import AUDIENCE, ISSUER, Issuer

if TYPE_CHECKING:
    from pathlib import Path

WRITER = "system:serviceaccount:quant:writer"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    found = Issuer()
    found.add("one")
    found.add("two", elliptic=True)
    return found


@pytest.fixture
def file(tmp_path: Path, issuer: Issuer) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.jwks())
    return path


def verifier(keys: Keys) -> Verifier:
    nobody: frozenset[str] = frozenset()
    return Verifier(
        ISSUER,
        AUDIENCE,
        keys,
        {"records": None, "read": nobody, "outcomes": frozenset({WRITER}), "ledgers": nobody, "define": nobody},
    )


def check(verifier: Verifier, token: str | None, role: Any = "outcomes") -> str:
    return asyncio.run(verifier.check(role, token if token is None else f"Bearer {token}"))


def test_a_projected_token_of_an_allowed_account(issuer: Issuer, file: Path) -> None:
    found = verifier(Keys(file=file))
    assert check(found, issuer.token(WRITER)) == WRITER
    assert check(found, issuer.token(WRITER, "two")) == WRITER
    assert check(found, None, "records") == "anonymous"


@pytest.mark.parametrize(
    ("claims", "status", "said"),
    [
        ({"aud": ["https://kubernetes.default.svc"]}, 401, "Audience"),
        ({"aud": None}, 401, 'missing the "aud" claim'),
        ({"iss": "https://elsewhere"}, 401, "issuer"),
        ({"exp": int(time.time()) - 60}, 401, "expired"),
        ({"exp": None}, 401, 'missing the "exp" claim'),
        ({"nbf": int(time.time()) + 86_400}, 401, "not yet valid"),  # long after the last test of this run
        ({"sub": None}, 401, 'missing the "sub" claim'),
        ({"sub": WRITER + "2"}, 403, "may not do this; expected one of the 1 subjects configured as outcomes"),
    ],
)
def test_tokens_that_say_something_else(
    issuer: Issuer, file: Path, claims: dict[str, Any], status: int, said: str
) -> None:
    with pytest.raises(Refused, match=said) as refused:
        check(verifier(Keys(file=file)), issuer.token(WRITER, **claims))
    assert refused.value.status == status


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def claims() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": WRITER, "iat": now, "exp": now + 600}


def test_forged_tokens(issuer: Issuer, file: Path) -> None:
    unsigned = f"{encoded({'alg': 'none', 'kid': 'one'})}.{encoded(claims())}."
    # the public key as an HMAC secret: accepted by whoever lets the token choose the algorithm
    body = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(claims())}"
    mac = hmac.new(issuer.public_pem("one"), body.encode(), hashlib.sha256).digest()
    confused = f"{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    other = Issuer()
    other.add("one")
    cut = issuer.token(WRITER)[:-8] + "AAAAAAAA"
    for token in (unsigned, confused, other.token(WRITER), cut, "abc", "a.b.c", ""):
        with pytest.raises(Refused) as refused:
            check(verifier(Keys(file=file)), token)
        assert refused.value.status == 401
    for header in ("Basic abc", "Bearer", issuer.token(WRITER)):
        with pytest.raises(Refused, match="no bearer token"):
            asyncio.run(verifier(Keys(file=file)).check("outcomes", header))


def test_rotated_keys_are_read_again_but_not_for_every_stranger(
    issuer: Issuer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "AGAIN", 0.0)
    reads: list[None] = []
    read = Keys.read

    async def counted(keys: Keys) -> bytes:
        reads.append(None)
        return await read(keys)

    monkeypatch.setattr(Keys, "read", counted)
    found = verifier(Keys(file=file))
    check(found, issuer.token(WRITER))
    rotated = Issuer({**issuer.keys})
    rotated.add("three")
    file.write_bytes(rotated.jwks())
    assert check(found, rotated.token(WRITER, "three")) == WRITER
    monkeypatch.setattr(tokens, "AGAIN", 3600.0)
    before = len(reads)
    stranger = Issuer()
    for kid in ("x", "y", "z"):
        stranger.add(kid, elliptic=True)
        with pytest.raises(Refused, match=f"the key {kid}, which the issuer does not publish"):
            check(found, stranger.token(WRITER, kid))
    assert len(reads) == before


def test_known_keys_outlive_the_issuer(issuer: Issuer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "AGAIN", 0.0)
    found = verifier(Keys(file=file))
    check(found, issuer.token(WRITER))
    for content in (b"", b"[]", b'{"keys": 3}', b'{"keys": [{"kty": "RSA"}]}'):
        file.write_bytes(content)
        assert check(found, issuer.token(WRITER)) == WRITER
        with pytest.raises(Refused) as refused:
            check(verifier(Keys(file=file)), issuer.token(WRITER))
        assert (refused.value.status, refused.value.reason) == (503, "KeysUnavailable")


def test_keys_from_the_api_server(issuer: Issuer, tmp_path: Path) -> None:
    """The server asks for a token itself, which is read from its file each time."""
    (tmp_path / "token").write_text("own-token\n")

    async def jwks(request: web.Request) -> web.Response:
        status = 200 if request.headers.get("Authorization") == "Bearer own-token" else 401
        return web.Response(body=issuer.jwks(), status=status)

    async def story() -> None:
        app = web.Application()
        app.router.add_get("/openid/v1/jwks", jwks)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/openid/v1/jwks"
        try:
            header = f"Bearer {issuer.token(WRITER)}"
            assert await verifier(Keys(url=url, token_file=tmp_path / "token")).check("outcomes", header) == WRITER
            with pytest.raises(Refused) as refused:
                await verifier(Keys(url=url)).check("outcomes", header)
            assert refused.value.reason == "KeysUnavailable"
        finally:
            await runner.cleanup()

    asyncio.run(story())
