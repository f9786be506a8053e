"""The load's client: its clock does not wait for the service, and every request leaves a record."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import grpc
import pytest

from sandbox import load
from sandbox.load import Report, Sent

if TYPE_CHECKING:
    from collections.abc import Iterator


class Service:
    """A service on the loopback that can be stopped for a while."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.status = 200
        self.version = "1"
        self.sizes: list[tuple[float, int]] = []  # when a request came, and how long its body was
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                self.rfile.read(size)
                service.sizes.append((time.time(), size))
                service.open.wait(10)
                self.send_response(service.status)
                self.send_header("fiduciary-version", service.version)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def target(self) -> load.Target:
        return load.Target(f"http://127.0.0.1:{self.server.server_port}/", (b"a", b"bb"), {"x": "y"})

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def test_a_stalled_service_is_asked_on_and_its_queue_is_measured(service: Service) -> None:
    with load.running(service.target, rate=100) as client:
        client.until_answered(20)
        service.open.clear()
        stalled = time.time()
        time.sleep(0.6)  # the stall itself is what is measured
        service.open.set()
        opened = time.time()
        client.until_answered(20)
        report = client.stop()
    assert not report.failed
    during = report.since(stalled + 0.05, opened - 0.05)
    assert len(during.sent) == pytest.approx(50, abs=10), "arrivals followed the clock, not the answers"
    assert during.latency(1.0) > 0.4
    assert report.rate == pytest.approx(100, rel=0.05)


def test_errors_and_versions_are_recorded(service: Service) -> None:
    with load.running(service.target, rate=100) as client:
        client.until_answered(5, "1")
        service.version = "2"
        client.until_answered(5, "2")
        service.status = 503
        report = client.until(lambda report: len(report.failed) >= 3, "three failures")
        service.status = 200
        report = client.stop()
    assert {one.status for one in report.failed} == {503}
    assert report.last_from("1") < report.first_from("2")
    assert report.summary().count("HTTP 503") == 1


def test_a_service_that_is_not_there_is_an_error_of_each_request() -> None:
    with load.running(load.Target("http://127.0.0.1:1/", (b"{}",)), rate=100) as client:
        client.until(lambda report: len(report.failed) >= 10, "ten failures")
        report = client.stop()
    assert all(one.failed and one.status == 0 and "127.0.0.1" in one.error for one in report.sent)


def test_grpc_is_asked_and_its_answer_understood() -> None:
    """The version is read from a ModelInferResponse: model_version is its field 2."""
    seen: list[dict[str, str]] = []

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append({key: str(value) for key, value in context.invocation_metadata()})
        if request == b"bb":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such input")
        return b"\x12\x017"

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    target = load.Target(f"127.0.0.1:{port}", (b"a", b"bb"), {"fiduciary-model": "quant.spx"}, grpc=True)
    try:
        with load.running(target, rate=100) as client:
            client.until_answered(10, "7")
            report = client.stop()
    finally:
        server.stop(None)
    assert report.versions.keys() == {"7", ""}
    assert all("INVALID_ARGUMENT" in one.error for one in report.failed)
    assert seen[0]["fiduciary-model"] == "quant.spx"


def test_a_closed_loop_keeps_its_workers_busy(service: Service) -> None:
    with load.running(service.target, workers=2, seconds=0.5) as client:
        report = client.until(lambda report: len(report.sent) > 20, "more than twenty")
    assert not report.failed


def test_either_rate_or_workers() -> None:
    with pytest.raises(ValueError, match="either rate"), load.running(load.Target("http://127.0.0.1:1/", (b"",))):
        pass


def test_quantiles_are_by_nearest_rank() -> None:
    report = Report(tuple(Sent(float(n), n / 100, 0.0, 200) for n in range(1, 101)))
    assert report.latency(0.5) == 0.5
    assert report.latency(0.99) == 0.99
    assert report.latency(1.0) == 1.0
    assert math.isnan(Report(()).latency(0.5))
    assert report.rate == 1.0


def test_a_body_is_sent_for_as_long_as_it_dwells(service: Service) -> None:
    """A day of a replay: every request of it is the same."""
    with load.running(replace(service.target, dwell=1.0), rate=50) as client:
        report = client.until(lambda report: len(report.sent) >= 75, "requests of both bodies")
    began = report.sent[0].at
    sizes = [size for at, size in service.sizes if at - began < 0.8]
    assert set(sizes) == {1}, "the first body only"
    assert {size for _, size in service.sizes} == {1, 2}
