"""Ways to the API server: kubeconfigs with files and inline, tokens that rotate, and what is not supported."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from fiduciary.clients.access import Access, AccessError, from_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path


def kubeconfig(tmp_path: Path, user: dict[str, Any], server: str = "http://127.0.0.1:1") -> Path:
    path = tmp_path / "kubeconfig"
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_token_file_is_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert access.token_file == tmp_path / "token"


def test_plugins_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="user u logs in with a plugin; use a client certificate or a token"):
        from_kubeconfig(kubeconfig(tmp_path, {"exec": {"command": "aws"}}))


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {})
    path.write_text(path.read_text().replace("current-context: here", "current-context: elsewhere"))
    with pytest.raises(AccessError, match="contexts has no entry named 'elsewhere'"):
        from_kubeconfig(path)


def test_a_rotated_token_is_sent_without_a_restart_and_closing_a_session_leaves_the_pool(tmp_path: Path) -> None:
    token = tmp_path / "token"
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response()

    async def scenario() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        access = Access(f"http://127.0.0.1:{runner.addresses[0][1]}", None, token_file=token)
        async with access.connector() as pool:
            kopfs, ours = access.session(pool), access.session(pool)
            token.write_text("first\n")
            await kopfs.get(access.server)
            await kopfs.close()
            token.write_text("second\n")
            await ours.get(access.server)
            await ours.close()
        await runner.cleanup()

    asyncio.run(scenario())
    assert seen == ["Bearer first", "Bearer second"]


def jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize(
    ("text", "account"),
    [
        (
            jwt(b'{"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:ops:fiduciary"}'),
            ("https://kubernetes.default.svc", "system:serviceaccount:ops:fiduciary"),
        ),
        (jwt(b'{"iss": "https://login.example.com", "sub": "alice"}'), None),
        (jwt(b'{"iss": "https://kubernetes.default.svc"}'), None),
        (jwt(b"[]"), None),
        (jwt(b"{"), None),
        ("a.%%%.c", None),
        ("opaque", None),
        ("", None),
    ],
    ids=["account", "person", "nobody", "list", "no-json", "no-base64", "opaque", "empty"],
)
def test_which_service_account_this_is_stands_in_its_token(
    tmp_path: Path, text: str, account: tuple[str, str] | None
) -> None:
    file = tmp_path / "token"
    assert Access("http://a", None, token_file=file).account() is None
    file.write_text(text + "\n")
    assert Access("http://a", None, token_file=file).account() == account
    assert Access("http://a", None, token=text).account() == account
    assert Access("http://a", None).account() is None
