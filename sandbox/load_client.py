"""The process that sends a load (see load.py): plan as JSON on standard input, a line of JSON for each request."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import aiohttp

from fiduciary.clients import oip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    Ask = Callable[[bytes], Awaitable[tuple[int, str]]]  # body -> status, version

VERSION_HEADER = "fiduciary-version"
MAX_OUTSTANDING = 4000  # more than that is a service that does not answer: the rest counts as failed
FLUSH = 0.1  # seconds between writes of what ended


class _Sender:
    """Sends bodies in turn by `ask` (body -> status, version) and writes a line for each that ended."""

    def __init__(self, bodies: Sequence[bytes], ask: Ask, out: TextIO, dwell: float):
        self._bodies, self._ask, self._out, self._dwell = bodies, ask, out, dwell
        self._outstanding: set[asyncio.Task[None]] = set()
        self._count = 0
        self.ended = asyncio.Event()
        # One reading of the wall clock, so that a clock that is set meanwhile bends no latency.
        self._epoch = time.time() - time.perf_counter()
        self._began = time.perf_counter()

    async def open_loop(self, rate: float) -> None:
        """Start each request when it is due. A loop that fell behind starts what it missed at once, each counted
        from when it was due."""
        began, number = time.perf_counter(), 0
        while not self.ended.is_set():
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ended.wait(), wait)
                    break
            self._start(due)
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0)  # a loop that catches up must not starve the answers
        await self._rest()

    async def closed_loop(self, workers: int) -> None:
        async def work() -> None:
            while not self.ended.is_set():
                await self._one(time.perf_counter())

        await asyncio.gather(*(work() for _ in range(workers)))

    def _start(self, due: float) -> None:
        if len(self._outstanding) >= MAX_OUTSTANDING:
            self._record(due, due, 0, "", f"more than {MAX_OUTSTANDING} requests were waiting for an answer")
            return
        task = asyncio.create_task(self._one(due))
        self._outstanding.add(task)
        task.add_done_callback(self._outstanding.discard)

    async def _one(self, due: float) -> None:
        began = time.perf_counter()
        status, version, error = 0, "", ""
        try:
            status, version = await self._ask(self._next(due))
        except TimeoutError:
            error = "timeout"
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        self._record(due, began, status, version, error)

    def _next(self, due: float) -> bytes:
        self._count += 1
        place = int((due - self._began) / self._dwell) if self._dwell else self._count
        return self._bodies[place % len(self._bodies)]

    def _record(self, due: float, began: float, status: int, version: str, error: str) -> None:
        ended = time.perf_counter()
        row = (self._epoch + due, round(ended - due, 6), round(began - due, 6), status, version, error)
        self._out.write(json.dumps(row) + "\n")

    async def _rest(self) -> None:
        if self._outstanding:
            await asyncio.wait(set(self._outstanding))


async def _send(plan: dict[str, Any], out: TextIO) -> None:
    bodies = [base64.b64decode(body) for body in plan["bodies"]]
    async with _grpc(plan) if plan["grpc"] else _rest(plan) as ask:
        sender = _Sender(bodies, ask, out, plan["dwell"])
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, sender.ended.set)
        loop.call_later(plan["seconds"], sender.ended.set)
        flushing = asyncio.create_task(_flush(out))
        await (sender.open_loop(plan["rate"]) if plan["rate"] else sender.closed_loop(plan["workers"]))
        flushing.cancel()


@asynccontextmanager
async def _rest(plan: dict[str, Any]) -> AsyncIterator[Ask]:
    """POST over as many connections as are needed at once."""
    timeout = aiohttp.ClientTimeout(total=plan["timeout"])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=plan["headers"]) as session:

        async def ask(body: bytes) -> tuple[int, str]:
            async with session.post(plan["url"], data=body) as answer:
                await answer.read()
                return answer.status, answer.headers.get(VERSION_HEADER, "")

        yield ask


@asynccontextmanager
async def _grpc(plan: dict[str, Any]) -> AsyncIterator[Ask]:
    """ModelInfer over one HTTP/2 connection, as grpc's clients do."""
    import grpc  # not everywhere where a load over REST is wanted

    async with grpc.aio.insecure_channel(plan["url"]) as channel:
        call = channel.unary_unary(oip.MODEL_INFER)
        metadata = tuple(plan["headers"].items())

        async def ask(body: bytes) -> tuple[int, str]:
            try:
                answer = await call(body, metadata=metadata, timeout=plan["timeout"])
            except grpc.aio.AioRpcError as error:
                raise ConnectionError(f"{error.code().name}: {error.details()}") from error
            return 200, oip.infer_response(answer)[0]

        yield ask


async def _flush(out: TextIO) -> None:
    while True:
        await asyncio.sleep(FLUSH)
        out.flush()


def main() -> None:
    """Carry out the plan on standard input."""
    plan = json.load(sys.stdin)
    with Path(plan["records"]).open("a") as out:
        asyncio.run(_send(plan, out))


if __name__ == "__main__":
    main()
