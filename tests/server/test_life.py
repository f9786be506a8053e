"""A server's beginning and end, with real signals: ready after a prediction, gone without losing a request."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from tests.server.served import NAME, Served, digest_of, message, serving, window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    Bars = Mapping[str, np.ndarray]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("silent", "cannot answer an example of its own reference"),
        ("narrow", "signature.json says features"),
    ],
)
def test_a_version_that_cannot_answer_is_never_ready(versions: Path, tmp_path: Path, name: str, words: str) -> None:
    served = Served(versions / name, tmp_path)
    try:
        assert served.process.wait(60) == 70
        ended = json.loads(served.termination.read_text())
        assert ended["reason"] == "BadVersion"
        assert words in ended["message"]
        assert '"GET /v2/health/ready HTTP/1.1" 200' not in served.log.read_text()
    finally:
        served.close()


def test_a_folder_that_is_not_the_version_never_serves(versions: Path, tmp_path: Path) -> None:
    """Though the init container has checked it already."""
    folder = tmp_path / "version"
    shutil.copytree(versions / "har", folder)
    for change, digest in ((b"", "sha256:" + "0" * 64), (b" ", digest_of(folder))):
        with (folder / "features.json").open("ab") as file:
            file.write(change)
        served = Served(folder, tmp_path, digest=digest)
        try:
            assert served.process.wait(60) == 65
            assert json.loads(served.termination.read_text())["reason"] == "DigestMismatch"
        finally:
            served.close()


class Client(threading.Thread):
    """Sends one request after the other until it is ``moved``; a new connection when it is told to close the old one.

    Attributes:
        answered: good answers.
        lost: requests that were sent and got no good answer.
        closing: answers that asked for a new connection.
    """

    def __init__(self, port: int, body: dict[str, Any], moved: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._body, self._moved = port, json.dumps(body), moved
        self.answered, self.closing = 0, 0
        self.lost: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._moved.is_set():
            try:
                connection.request("POST", f"/v2/models/{NAME}/infer", self._body)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            if answer.status != 200:
                self.lost.append(str(answer.status))
            self.answered += 1
            if answer.getheader("connection") == "close":
                self.closing += 1
                connection.close()


class Caller(threading.Thread):
    """The same over gRPC."""

    def __init__(self, served: Served, body: dict[str, Any], moved: threading.Event) -> None:
        super().__init__(daemon=True)
        self._served, self._request, self._moved = served, message(body), moved
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self._moved.is_set():
            try:
                self._served.call(self._request)
                self.answered += 1
            except grpc.RpcError as error:
                self.lost.append(f"{error.code()} {error.details()}")
                return


GATEWAY_DELAY = 1.0
"""Seconds between a pod that is not ready and a gateway that sends it nothing more."""


def test_sigterm_under_load_loses_no_request(versions: Path, bars: Bars) -> None:
    body, moved = window(bars, 4000), threading.Event()
    with serving(versions / "har", drainSeconds=10) as served:
        clients = [Client(served.rest, body, moved) for _ in range(6)]
        callers = [Caller(served, body, moved) for _ in range(2)]
        for each in (*clients, *callers):
            each.start()
        while min(each.answered for each in (*clients, *callers)) < 50:
            time.sleep(0.01)
        served.terminate()
        deadline = time.monotonic() + 2
        while (ready := served.http.get("/v2/health/ready")).status_code != 503:
            assert time.monotonic() < deadline, "still ready after SIGTERM"
        assert "draining" in ready.json()["error"]
        assert served.http.get("/v2/health/live").status_code == 200
        moved.wait(GATEWAY_DELAY)  # no waiting for luck: as long as a gateway takes, requests keep coming
        moved.set()
        for each in (*clients, *callers):
            each.join(30)
            assert each.lost == []
        counted = served.counters()
        assert served.process.wait(30) == 0
        assert sum(each.closing for each in clients) > len(clients), "answers moved clients to other connections"
        for kind, of in (("rest", clients), ("grpc", callers)):
            answered = sum(each.answered for each in of)
            assert counted[f"fiduciary_requests_total{{outcome=success,protocol={kind}}}"] == answered
            assert counted[f"fiduciary_requests_started_total{{protocol={kind}}}"] == answered
        assert "Traceback" not in served.log.read_text()


def test_an_idle_server_ends_soon(versions: Path) -> None:
    with serving(versions / "har", drainSeconds=60) as served:
        began = time.monotonic()
        served.terminate()
        assert served.process.wait(30) == 0
        assert time.monotonic() - began < 20, "nobody sends: it does not wait for the whole drain"


def test_a_request_that_is_under_way_is_answered(versions: Path, bars: Bars) -> None:
    """Half of it has come when SIGTERM does, the other half when nothing else is left to wait for."""
    content = json.dumps(window(bars, 4000)).encode()
    with (
        serving(versions / "har", drainSeconds=4) as served,
        socket.create_connection(("127.0.0.1", served.rest)) as half,
    ):
        half.settimeout(30)
        head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        half.sendall(head + content[:100])
        while served.counters()["fiduciary_requests_started_total{protocol=rest}"] < 1:
            time.sleep(0.01)
        served.terminate()
        while served.http.get("/v2/health/ready").status_code != 503:
            time.sleep(0.01)
        time.sleep(2.5)  # longer than the quiet that ends a drain
        half.sendall(content[100:])
        answer = half.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        assert served.process.wait(30) == 0


def test_before_it_is_loaded_nothing_is_answered(versions: Path, bars: Bars, tmp_path: Path) -> None:
    """In one process, so that the moment can be held: not ready, 503, and no request is counted."""
    import asyncio

    from mlserver import ModelSettings
    from mlserver.settings import ModelParameters

    from fiduciary_server.life import Life
    from fiduciary_server.rest import Rest
    from fiduciary_server.runtime import FiduciaryRuntime
    from tests.server.served import document

    given = json.dumps(document(digest_of(versions / "har")))
    parameters = ModelParameters(uri=str(versions / "har"), version="7", extra={"serving": given})
    runtime = FiduciaryRuntime(ModelSettings(name=NAME, implementation=FiduciaryRuntime, parameters=parameters))
    app = Rest(runtime, Life(runtime))

    async def look() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as http:
            body = window(bars, 4000)
            for path in ("/v2/health/ready", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}"):
                assert (await http.get(path)).status_code == 503
            assert (await http.get("/v2/health/live")).status_code == 200
            refused = await http.post(f"/v2/models/{NAME}/infer", json=body)
            assert refused.status_code == 503
            assert "being loaded" in refused.json()["error"]
            runtime.ready = await runtime.load()
            assert (await http.get("/v2/health/ready")).status_code == 200
            assert (await http.post(f"/v2/models/{NAME}/infer", json=body)).status_code == 200

    asyncio.run(look())
    assert b'fiduciary_requests_started_total{digest="' in runtime.metrics.exposition()
    started = [line for line in runtime.metrics.exposition().decode().splitlines() if "requests_started_total{" in line]
    assert sum(float(line.rpartition(" ")[2]) for line in started) == 1.0
