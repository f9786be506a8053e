"""The real operator process, with a place to die: `python -m tests.controlplane.engine.entry '{"survive": [...]}'`.

With `"network": {"rest": port, "grpc": port}` every name that is probed is found there, on the loopback.

Production has no switch for this. Here the process sends itself SIGKILL just before its first numbered write that is
not listed (a name that is listed twice is survived twice), or with `{"die": ["2-route", "3-status"]}` before its first
status after a route, or carries a decision out in another order. It prints each write's name, so that a test knows
where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from fiduciary import logs
from fiduciary.app import Operator
from fiduciary.clients import access
from fiduciary.clients.inference import InferenceClient
from fiduciary.engine.writes import ORDER, Step
from fiduciary.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.clients.probekey import ProbeKey
    from fiduciary.settings import Settings


def main() -> int:
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    settings = load()
    logs.configure(settings.log_level)
    network = options.get("network")
    operator = Operator(
        settings,
        access.find(),
        checkpoint=_dying(options.get("survive"), options.get("die")),
        order=_swapped(options.get("swap")),
        **({} if network is None else {"inference": _found_at(network)}),
    )
    try:
        asyncio.run(operator.run(started=lambda port: print(f"port {port}", flush=True)))
    except BaseExceptionGroup as errors:
        print("ended by", [repr(error) for error in errors.exceptions], file=sys.stderr)
        return 1
    return 0


class _Loopback(AbstractResolver):
    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def _found_at(network: dict[str, int]) -> Callable[[ProbeKey | None, Settings], InferenceClient]:
    def make(key: ProbeKey | None, settings: Settings) -> InferenceClient:
        return InferenceClient(
            key,
            timeout=settings.probes.timeout_seconds,
            connector=lambda: aiohttp.TCPConnector(resolver=_Loopback(network["rest"]), force_close=True),
            resolve=lambda host, port: ("127.0.0.1", network["grpc"]),
        )

    return make


def _dying(survive: list[str] | None, die: list[str] | None) -> Callable[[str], None]:
    left = None if survive is None else Counter(survive)
    ahead = list(die or ())

    def checkpoint(name: str) -> None:
        print(f"write {name}", flush=True)
        if ahead == [name] or (left is not None and not left[name]):
            os.kill(os.getpid(), signal.SIGKILL)
        if ahead[:1] == [name]:
            ahead.pop(0)
        if left is not None:
            left[name] -= 1

    return checkpoint


def _swapped(names: list[str] | None) -> tuple[Step, ...]:
    if not names:
        return ORDER
    first, second = (Step(name) for name in names)
    exchange = {first: second, second: first}
    return tuple(exchange.get(step, step) for step in ORDER)


if __name__ == "__main__":
    sys.exit(main())
