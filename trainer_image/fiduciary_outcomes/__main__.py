"""``python -m fiduciary_outcomes``: the scorer, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from aiohttp import web

from fiduciary_outcomes import settings as configured
from fiduciary_outcomes.calendar import Calendars
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.logs import log
from fiduciary_outcomes.memory import Memory, WrongStore
from fiduciary_outcomes.web import Api
from fiduciary_outcomes.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from fiduciary_outcomes.settings import Settings

BAD_SETTINGS = 64


async def serve(settings: Settings, clock: Callable[[], float], started: Callable[[int, int], None]) -> int:
    """Run until SIGTERM or SIGINT, or until the writer fails; returns the exit code.

    Args:
        clock: seconds since 1970; sessions are closed by it.
        started: told the ports of the API and of the metrics once they listen.
    """
    calendars = Calendars.read(settings.calendars)
    writer = Writer(
        lambda: Memory(settings.store.writer(), settings.namespace, calendars),
        clock,
        settings.most_waiting,
        settings.retention,
    )
    api = Api(settings, writer, clock)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ended(_: Future[None]) -> None:
        loop.call_soon_threadsafe(stop.set)

    writer.ended.add_done_callback(ended)
    applications = (api.api(), api.metrics())
    runners = [web.AppRunner(app, access_log=None, shutdown_timeout=settings.drain) for app in applications]
    ports: list[int] = []
    for runner, port in zip(runners, (settings.port, settings.metrics_port), strict=True):
        await runner.setup()
        await web.TCPSite(runner, settings.host or None, port, backlog=1024).start()
        ports.append(runner.addresses[0][1])
    writer.start()
    started(*ports)
    log("info", "started", port=ports[0], metricsPort=ports[1])
    await stop.wait()
    api.ending = True
    # Connections first, then the writer: what was taken is answered.
    for runner in runners:
        await runner.cleanup()
    writer.stop()
    await asyncio.wrap_future(writer.ended)
    await api.close()
    log("info", "ended", failed=writer.failure is not None)
    return 0 if writer.failure is None else 1


def unheard(api_port: int, metrics_port: int) -> None:
    """Nobody waits for the ports of a process in a pod."""


def main(clock: Callable[[], float] = time.time, started: Callable[[int, int], None] = unheard) -> int:
    """Exit code 64 for settings that cannot be used."""
    try:
        settings = configured.read(os.environ)
    except Refused as refused:
        log("error", f"{configured.VARIABLE} cannot be used: {refused.message}", reason=refused.reason)
        return BAD_SETTINGS
    try:
        return asyncio.run(serve(settings, clock, started))
    except (WrongStore, OSError) as error:
        log("error", "the scorer cannot run", error=error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
