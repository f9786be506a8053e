"""The outcome scorer believes the API server's own tokens: issued by TokenRequest, verified with its published keys."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.access import from_kubeconfig
from fiduciary.clients.kube import AiohttpCluster, Forbidden
from fiduciary.clients.tokens import Tokens
from fiduciary.engine import kinds
from fiduciary.manifests.outcomes import audience
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.tokens import Keys, Role, Verifier
from tests.controlplane.server import OPERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controlplane.server import Server

AUDIENCE = "fiduciary-outcomes.quant"
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


def test_the_operator_gets_tokens_of_itself_one_for_each_namespace(
    server: Server, namespace: str, tmp_path: Path
) -> None:
    """With the rights of deploy/: a scorer that keeps the token that it was shown can use it nowhere else."""
    place, account = OPERATOR
    subject = f"system:serviceaccount:{place}:{account}"
    server.admin.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger", "namespace": namespace}}
    )
    access = from_kubeconfig(server.operator_kubeconfig())
    own = tmp_path / "token"
    own.write_text(token(server, place, account, ISSUER))
    keys = Keys(url=f"{server.plane.url}/openid/v1/jwks", ca_file=server.plane.ca, token_file=own)
    # The token that every pod has says who it is.
    assert replace(access, token_file=own).account() == (ISSUER, subject)

    def scorer(of: str) -> Verifier:
        nobody: frozenset[str] = frozenset()
        define = frozenset({subject})
        subjects: dict[Role, frozenset[str] | None] = {
            "records": None, "read": None, "outcomes": nobody, "ledgers": nobody, "define": define
        }  # fmt: skip
        return Verifier(ISSUER, audience(of), keys, subjects)

    async def scenario() -> None:
        async with access.connector() as connector, access.session(connector) as session:
            cluster = AiohttpCluster(access.server, lambda: session)
            tokens = Tokens(cluster, subject)
            mine, other = [await tokens.of(audience(of)) for of in ("quant", "desk")]
            assert await tokens.of(audience("quant")) == mine
            assert await scorer("quant").check("define", f"Bearer {mine}") == subject
            assert await scorer("desk").check("define", f"Bearer {other}") == subject
            for of, shown in (("quant", other), ("desk", mine)):
                with pytest.raises(Refused, match="Audience doesn't match"):
                    await scorer(of).check("define", f"Bearer {shown}")
            for where, who in ((namespace, "stranger"), (place, "default")):
                with pytest.raises(Forbidden, match="serviceaccounts/token"):
                    await cluster.token(where, who, audience("quant"), 3600)
            # Nor is it one that the API server takes.
            strange = replace(access, tls=_anonymous(server), token=mine)
            async with strange.connector() as pool, strange.session(pool) as nobody:
                with pytest.raises(Forbidden, match="401"):
                    await AiohttpCluster(access.server, lambda: nobody).get(kinds.SECRET, place, "fiduciary-probe-key")

    asyncio.run(scenario())


def _anonymous(server: Server) -> ssl.SSLContext:
    """Without the client certificate."""
    return ssl.create_default_context(cafile=str(server.plane.ca))
