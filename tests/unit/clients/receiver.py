"""A receiver on loopback that keeps what it got and answers as a test says."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path


@dataclass
class Got:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Place:
    """``status``: of the next answers; ``silent``: there is none within any time."""

    address: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    silent: bool = False
    got: list[Got] = field(default_factory=list[Got])


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Place]:
    place = Place()
    ended = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        place.got.append(Got(request.path, dict(request.headers), await request.read()))
        if place.silent:
            await ended.wait()
        return web.Response(status=place.status, headers=dict(place.headers), text="not for anybody's eyes")

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    place.address = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield place
    finally:
        ended.set()
        await runner.cleanup()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", "-x509", *curve, "-days", "2", *names, *files], check=True, capture_output=True)
    return cert, key
