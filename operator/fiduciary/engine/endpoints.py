"""/healthz, /readyz and /metrics, from before the Lease is asked for until the process ends.

Live: the event loop turns and no watch is known to be dead. Ready: a standby waits for the Lease, or the active
replica has listed every kind once. A standby is ready, else a rollout of two replicas would never finish.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: Answers why something is not so; an empty text means that it is.
Probe = Callable[[], str]


@asynccontextmanager
async def serving(listen: str, *, live: Probe, ready: Probe, metrics: Callable[[], bytes]) -> AsyncGenerator[int]:
    """Serve on ``host:port`` (port 0: any) while the block runs; yields the port."""

    def probe(answer: Probe) -> Callable[[web.Request], object]:
        async def handle(request: web.Request) -> web.Response:
            reason = answer()
            return web.Response(status=503 if reason else 200, text=reason or "ok")

        return handle

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.router.add_get("/healthz", probe(live))  # type: ignore[arg-type]
    application.router.add_get("/readyz", probe(ready))  # type: ignore[arg-type]
    application.router.add_get("/metrics", scrape)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        site = web.TCPSite(runner, host or None, int(port))
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
