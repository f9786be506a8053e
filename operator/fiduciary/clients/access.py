"""How this process reaches the API server: the pod's ServiceAccount, or a kubeconfig.

One connection pool serves kopf's watches and our own requests. A bearer token is read from its file for each request
(the kubelet rotates it), so there is no expiry to handle.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(Exception):
    """No way to the API server was found; the message says what was looked for."""


@dataclass(frozen=True)
class Access:
    """Where the API server is, and who we are to it."""

    server: str
    tls: ssl.SSLContext | None
    token_file: Path | None = None
    token: str | None = None

    def connector(self) -> aiohttp.BaseConnector:
        """A pool without a limit: each watch holds one connection for ever, and writers are bounded elsewhere."""
        return aiohttp.TCPConnector(limit=0, ssl=self.tls if self.tls is not None else True)

    def session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        """A session over a shared pool. Whoever closes it closes itself only: kopf does so when it ends."""

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token
            if token:
                request.headers["Authorization"] = f"Bearer {token}"
            return await handler(request)

        needs_token = self.token_file is not None or self.token is not None
        return aiohttp.ClientSession(
            connector=connector, connector_owner=False, middlewares=(authorize,) if needs_token else ()
        )

    def account(self) -> tuple[str, str] | None:
        """(issuer, subject) of the ServiceAccount that this process is to the API server; None where it is none.

        Read from our own token, not verified: whoever takes our tokens does that.
        """
        try:
            text = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token or ""
            payload = text.split(".")[1]
            found: object = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (OSError, ValueError, IndexError, binascii.Error):
            return None
        claims = cast("dict[str, object]", found) if isinstance(found, dict) else {}
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not isinstance(issuer, str) or not isinstance(subject, str):
            return None
        return (issuer, subject) if subject.startswith("system:serviceaccount:") else None


def find() -> Access:
    """The pod's ServiceAccount where there is one, else ``KUBECONFIG`` or ``~/.kube/config``."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host and (SERVICE_ACCOUNT / "token").exists() and "KUBECONFIG" not in os.environ:
        bracketed = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
        return Access(f"https://{bracketed}:{port}", tls, token_file=SERVICE_ACCOUNT / "token")
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if not path.exists():
        raise AccessError(
            f"no way to an API server: neither a ServiceAccount in {SERVICE_ACCOUNT} nor a kubeconfig at {path}; "
            "set KUBECONFIG"
        )
    return from_kubeconfig(path)


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig: client certificates and tokens, from files or inline.

    Raises :class:`AccessError` for what is not supported (exec plugins) or not there.
    """
    config = cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))
    context = _named(config, "contexts", str(config.get("current-context", "")), path)["context"]
    cluster = _named(config, "clusters", context["cluster"], path)["cluster"]
    user = _named(config, "users", context["user"], path)["user"]
    if "exec" in user or "auth-provider" in user:
        raise AccessError(f"{path}: user {context['user']} logs in with a plugin; use a client certificate or a token")
    tls = None
    if str(cluster["server"]).startswith("https"):
        tls = ssl.create_default_context(
            cafile=_file(cluster, "certificate-authority", path),
            cadata=_inline(cluster, "certificate-authority-data"),
        )
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        _load_client(tls, user, path)
    token_file = _file(user, "tokenFile", path)
    return Access(
        server=str(cluster["server"]),
        tls=tls,
        token_file=Path(token_file) if token_file else None,
        token=user.get("token"),
    )


def _load_client(tls: ssl.SSLContext, user: dict[str, Any], path: Path) -> None:
    certificate, key = _file(user, "client-certificate", path), _file(user, "client-key", path)
    if certificate and key:
        tls.load_cert_chain(certificate, key)
    elif inline := _inline(user, "client-certificate-data"):
        # The ssl module reads certificates from files only; this one lives for a moment and for us alone.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
            pem.write(inline + "\n" + (_inline(user, "client-key-data") or ""))
            pem.flush()
            tls.load_cert_chain(pem.name)


def _named(config: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    entries = cast("list[dict[str, Any]]", config.get(section) or [])
    entry = next((entry for entry in entries if entry.get("name") == name), None)
    if entry is None:
        raise AccessError(f"{path}: {section} has no entry named {name!r}")
    return entry


def _file(section: dict[str, Any], key: str, path: Path) -> str | None:
    """Paths in a kubeconfig are relative to the kubeconfig."""
    value = section.get(key)
    return str(path.parent / str(value)) if value else None


def _inline(section: dict[str, Any], key: str) -> str | None:
    value = section.get(key)
    return base64.b64decode(str(value)).decode() if value else None
