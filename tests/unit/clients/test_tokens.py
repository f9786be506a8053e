"""Tokens of the operator: one for each audience, renewed in time, kept while no other is to be had."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.kube import Forbidden, KubeError, Token, Unavailable
from fiduciary.clients.tokens import SECONDS, TokenError, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 11, 26, tzinfo=UTC)
SUBJECT = "system:serviceaccount:fiduciary-system:fiduciary-operator"


class Server:
    """Numbers what it issues; ``granted`` is how long it lets a token live."""

    def __init__(self, granted: int = SECONDS) -> None:
        self.now = START
        self.granted = timedelta(seconds=granted)
        self.issued: list[str] = []
        self.trouble: KubeError | None = None
        self.silent = False

    async def token(self, namespace: str, account: str, audience: str, seconds: int) -> Token:
        assert (namespace, account, seconds) == ("fiduciary-system", "fiduciary-operator", SECONDS)
        if self.silent:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        self.issued.append(audience)
        return Token(f"{audience}#{len(self.issued)}", self.now + self.granted, self.granted)

    def tokens(self, timeout: float = 10.0) -> Tokens:
        return Tokens(self, SUBJECT, timeout=timeout, now=lambda: self.now)

    def later(self, **passed: int) -> None:
        self.now += timedelta(**passed)


def asked(tokens: Tokens, audience: str = "a") -> str:
    return asyncio.run(tokens.of(audience))


def test_each_audience_has_its_own_and_it_is_asked_for_once() -> None:
    server = Server()
    tokens = server.tokens()
    assert [asked(tokens, audience) for audience in ("a", "b", "a", "b")] == ["a#1", "b#2", "a#1", "b#2"]
    assert server.issued == ["a", "b"]


@pytest.mark.parametrize("granted", [3600, 600], ids=["as-asked", "less-than-asked"])
def test_it_is_renewed_when_a_fifth_of_its_life_is_left(granted: int) -> None:
    server = Server(granted)
    tokens = server.tokens()
    asked(tokens)
    server.later(seconds=granted * 4 // 5 - 1)
    assert asked(tokens) == "a#1"
    server.later(seconds=1)
    assert asked(tokens) == "a#2"


def silence(server: Server) -> None:
    server.silent = True


def outage(server: Server) -> None:
    server.trouble = Unavailable(0, "Unreachable", "no answer")


@pytest.mark.parametrize("away", [silence, outage])
def test_while_the_api_server_is_away_the_old_one_is_shown_until_it_expires(away: Callable[[Server], None]) -> None:
    server = Server()
    tokens = server.tokens(timeout=0.01)
    asked(tokens)
    away(server)
    server.later(seconds=3599)
    assert asked(tokens) == "a#1"
    server.later(seconds=1)
    with pytest.raises(TokenError, match="no token of fiduciary-system/fiduciary-operator for a") as refused:
        asked(tokens)
    assert "a#1" not in str(refused.value)
    server.silent, server.trouble = False, None
    assert asked(tokens) == "a#2"


def test_a_missing_right_is_named() -> None:
    server = Server()
    server.trouble = Forbidden(403, "Forbidden", "cannot create resource serviceaccounts/token")
    with pytest.raises(TokenError, match=r"`create` of serviceaccounts/token, resourceNames \[fiduciary-operator\]"):
        asked(server.tokens())


def test_a_token_does_not_show_itself() -> None:
    assert "s3cret" not in repr(Token("s3cret", START, timedelta(seconds=1)))
