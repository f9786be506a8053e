"""The outcome scorer believes the API server's own tokens: issued by TokenRequest, verified with its published keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.tokens import Keys, Verifier

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controlplane.server import Server

AUDIENCE = "fiduciary-outcomes"
ISSUER = "https://kubernetes.default.svc"


def token(server: Server, namespace: str, account: str, audience: str) -> str:
    """As a pod gets it from a projected volume."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 600},
    }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return str(server.admin.request("POST", path, body)["status"]["token"])


def test_projected_tokens_against_the_published_keys(server: Server, namespace: str, tmp_path: Path) -> None:
    for account in ("writer", "stranger", "outcomes"):
        server.admin.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
        )
    own = tmp_path / "token"
    own.write_text(token(server, namespace, "outcomes", ISSUER))
    writer = f"system:serviceaccount:{namespace}:writer"
    nobody: frozenset[str] = frozenset()
    keys = Keys(url=f"{server.plane.url}/openid/v1/jwks", ca_file=server.plane.ca, token_file=own)

    async def check(*headers: str) -> list[str]:
        verifier = Verifier(
            ISSUER,
            AUDIENCE,
            keys,
            {"records": None, "read": None, "outcomes": frozenset({writer}), "ledgers": nobody, "define": nobody},
        )
        return [await verifier.check("outcomes", f"Bearer {header}") for header in headers]

    good = token(server, namespace, "writer", AUDIENCE)
    assert asyncio.run(check(good, good)) == [writer, writer]
    with pytest.raises(Refused, match="Audience doesn't match") as refused:
        asyncio.run(check(token(server, namespace, "writer", ISSUER)))
    assert refused.value.status == 401
    with pytest.raises(Refused, match=f"{namespace}:stranger may not do this") as refused:
        asyncio.run(check(token(server, namespace, "stranger", AUDIENCE)))
    assert refused.value.status == 403
    own.write_text("nobody")
    with pytest.raises(Refused) as refused:
        asyncio.run(check(good))
    assert refused.value.reason == "KeysUnavailable"
