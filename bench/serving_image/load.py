"""A client that costs little: prepared bytes over plain sockets, one thread, closed and open loop."""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Target:
    """An HTTP server and the request that it is sent, whole."""

    name: str
    port: int
    path: str
    body: bytes

    @property
    def request(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body


class Connection:
    """One keep-alive connection, one request at a time."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection(("127.0.0.1", target.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = target.request
        self.sent = 0.0

    def send(self) -> None:
        self.socket.sendall(self._request)

    def receive(self) -> None:
        """Read a whole answer; raises RuntimeError for another status than 200."""
        answer = self.socket.recv(65536)
        while not _whole(answer):
            part = self.socket.recv(65536)
            if not part:
                raise RuntimeError("the server closed the connection")
            answer += part
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:500].decode(errors="replace"))


def _whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return b"transfer-encoding: chunked" in lower and body.endswith(b"0\r\n\r\n")
    return len(body) >= int(lower[at + 15 :].partition(b"\r\n")[0])


def one_by_one(target: Target, count: int) -> list[float]:
    """Seconds of each of ``count`` requests over one connection, each sent when the one before is answered."""
    connection = Connection(target)
    taken: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        connection.send()
        connection.receive()
        taken.append(time.perf_counter() - began)
    connection.socket.close()
    return taken


def closed_loop(target: Target, connections: int, seconds: float) -> tuple[float, list[float]]:
    """Requests a second of so many connections that are always busy, and the seconds of each request."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = Connection(target)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.sent = time.perf_counter()
        connection.send()
    taken: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in selector.select(1.0):
            connection: Connection = key.data
            connection.receive()
            now = time.perf_counter()
            taken.append(now - connection.sent)
            connection.sent = now
            connection.send()
    for key in list(selector.get_map().values()):
        key.data.receive()
        key.data.socket.close()
    return len(taken) / (now - began), taken


def open_loop(target: Target, rate: float, seconds: float, connections: int = 64) -> list[float]:
    """Seconds of each request from the moment that it was due, whatever became of those before it.

    Requests are due ``1 / rate`` apart. One that finds no free connection waits, and its waiting counts: a server that
    stalls is not spared the requests that come meanwhile.
    """
    selector = selectors.DefaultSelector()
    free: list[Connection] = []

    def connect() -> None:
        connection = Connection(target)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        free.append(connection)

    for _ in range(connections):
        connect()
    taken: list[float] = []
    began = time.perf_counter()
    due, total = 0, int(rate * seconds)
    while len(taken) < total:
        now = time.perf_counter()
        while due < total and free and began + due / rate <= now:
            connection = free.pop()
            connection.sent = began + due / rate
            connection.send()
            due += 1
        wait = max(0.0, began + due / rate - time.perf_counter()) if due < total and free else 1.0
        for key, _ in selector.select(wait):
            done: Connection = key.data
            if done in free:  # uvicorn closes what is idle for five seconds; nobody waits for it
                selector.unregister(done.socket)
                done.socket.close()
                free.remove(done)
                connect()
                continue
            done.receive()
            taken.append(time.perf_counter() - done.sent)
            free.append(done)
    for connection in free:
        connection.socket.close()
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
