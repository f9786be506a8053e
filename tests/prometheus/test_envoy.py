"""A real Envoy whose clusters are named as Contour names them: which counter is what, for each way a request can end.

Contour gives each cluster the ``alt_stat_name`` <namespace>_<service>_<port> (internal/envoy/cluster.go, v1.33.8), and
switches the gRPC statistics filter on with upstream statistics (internal/envoy/v3/listener.go).
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide.counters.batches import tracks
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.counters.state import CLIENT, FAILED, FIELDS, GOOD, STARTED, TIMED, TIMED_ENDED
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.counters.tracks import line
from tests.prometheus.server import free_port, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTOUR = Contour(("projectcontour",))
THRESHOLD = 250  # ms
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
FLUSH = 0.3  # s: Envoy adds up its histograms when it flushes (every 5 s unless told otherwise)


class Upstream(http.server.BaseHTTPRequestHandler):
    """Ends a request as its header ``how`` says; for gRPC the status is in the headers (trailers-only)."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        how = self.headers.get("how", "200")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if how == "close":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if how == "slow":
            time.sleep(0.4)
        if how == "hang":
            time.sleep(1.5)
        grpc = how.startswith("grpc-")
        self.send_response(int(how) if how.isdecimal() else 200)
        self.send_header("Content-Type", "application/grpc" if grpc else "application/json")
        if grpc:
            self.send_header("grpc-status", how.removeprefix("grpc-"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@dataclass
class Gateway:
    """Envoy in front of one upstream: /v2 goes to the champion (and is copied), ModelInfer to its gRPC port."""

    port: int
    admin: int

    def send(self, path: str, how: str, *, timeout: float = 5.0, grpc: bool = False) -> int:
        """The status; 0 where the client went away first."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"how": how, "Content-Type": "application/grpc" if grpc else "application/json"}
        try:
            connection.request("POST", path, body=b"", headers=headers)
            return connection.getresponse().status
        except TimeoutError:
            return 0
        finally:
            connection.close()

    def values(self, service: str, port: int = 8080) -> tuple[int, ...]:
        """What the template reads of a service's cluster."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats/prometheus") as answer:
            text = answer.read().decode()
        target = {"namespace": "projectcontour", "pod": "envoy-x"}
        series = [
            Series({"__name__": name, **target, **dict(_LABEL.findall(labels))}, ((1, float(value)),))
            for name, labels, value in _SAMPLE.findall(text)
        ]
        found = tracks(CONTOUR, series, (THRESHOLD,))
        workload = Workload("quant", service.removesuffix("-mirror"))
        for track in (track for stream in found.get(workload, {}).values() for track in stream.values()):
            if track.key == f"projectcontour/envoy-x/{service}_{port}":
                return line(track, len(FIELDS) + 1, 0, 2).frames[0].values
        return ()


def _cluster(name: str, service: str, port: int, upstream: int | None) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    hosts = [] if upstream is None else [{"endpoint": {"address": address}}]
    return {
        "name": name,
        "alt_stat_name": f"quant_{service}_{port}",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }


def _config(port: int, admin: int, upstream: int, nobody: int) -> dict[str, Any]:
    def route(prefix: str, cluster: str, mirror: str | None = None) -> dict[str, Any]:
        action: dict[str, Any] = {"cluster": cluster, "timeout": "1s"}
        if mirror:
            action["request_mirror_policies"] = [{"cluster": mirror}]
        return {"match": {"prefix": prefix}, "route": action}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress_http",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        route("/refused", "refused"),
                        route("/nobody", "nobody"),
                        route("/inference.GRPCInferenceService/", "grpc", "grpc-mirror"),
                        route("/", "rest", "rest-mirror"),
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.grpc_stats",
                "typed_config": {
                    "@type": f"{types}.http.grpc_stats.v3.FilterConfig",
                    "emit_filter_state": True,
                    "enable_upstream_stats": True,
                },
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "stats_flush_interval": f"{FLUSH}s",
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {"filters": [{"name": "http", "typed_config": manager}]},
                    ],
                }
            ],
            "clusters": [
                _cluster("rest", "m-aaaaaaaa", 8080, upstream),
                _cluster("rest-mirror", "m-bbbbbbbb-mirror", 8080, upstream),
                _cluster("grpc", "m-aaaaaaaa", 8081, upstream),
                _cluster("grpc-mirror", "m-bbbbbbbb-mirror", 8081, upstream),
                _cluster("refused", "m-cccccccc", 8080, nobody),
                _cluster("nobody", "m-dddddddd", 8080, None),
            ],
        },
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    program = os.environ.get("FIDUCIARY_ENVOY") or shutil.which("envoy")
    if program is None:
        pytest.fail("no Envoy: run `make prometheus`, which brings the sandbox's, or put an `envoy` on the PATH")
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    with contextlib.ExitStack() as ends:
        ends.callback(upstream.server_close)
        ends.callback(upstream.shutdown)
        yield ends.enter_context(_running(program, tmp_path_factory.mktemp("envoy"), upstream.server_address[1]))


@contextlib.contextmanager
def _running(program: str, folder: Path, upstream: int) -> Iterator[Gateway]:
    found = Gateway(free_port(), free_port())
    config = folder / "envoy.json"
    config.write_text(json.dumps(_config(found.port, found.admin, upstream, free_port())))
    log = folder / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-c", str(config), "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"],
            stdout=output,
            stderr=output,
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{found.admin}/ready") as answer:
            return answer.status == 200
        return False

    try:
        wait(ready, 30, "Envoy to become ready")
        yield found
    finally:
        process.terminate()
        process.wait(20)


def test_every_way_in_which_a_request_can_end(gateway: Gateway) -> None:
    assert [gateway.send("/v2", "200") for _ in range(3)] == [200] * 3
    assert gateway.send("/v2", "404") == 404
    assert gateway.send("/v2", "500") == 500
    assert gateway.send("/v2", "slow") == 200
    assert gateway.send("/v2", "hang") == 504  # the route's timeout is 1 s
    assert gateway.send("/v2", "close") == 503
    assert gateway.send("/v2", "hang", timeout=0.3) == 0  # the client is gone before there is an answer
    sent, good, client, failed = 9, 4, 1, 3
    timed = 4 + 1 + 1 + 1  # answers, and what ran into the timeout; a closed connection has no duration

    def settled() -> bool:
        values = gateway.values("m-aaaaaaaa")
        return values[TIMED] == timed and values[STARTED] == sent

    wait(settled, 10, "Envoy's histograms to be flushed")
    values = gateway.values("m-aaaaaaaa")
    assert (values[STARTED], values[GOOD], values[CLIENT], values[FAILED]) == (sent, good, client, failed)
    assert values[TIMED] == values[TIMED_ENDED]
    assert values[len(FIELDS)] == 5  # within 250 ms


def test_copies_are_counted_by_their_own_cluster_and_outlive_the_client(gateway: Gateway) -> None:
    before = gateway.values("m-bbbbbbbb-mirror") or (0,) * (len(FIELDS) + 1)
    assert gateway.send("/v2", "hang", timeout=0.3) == 0
    assert gateway.send("/v2", "200") == 200

    def counted() -> bool:
        after = gateway.values("m-bbbbbbbb-mirror")
        changes = [new - old for new, old in zip(after, before, strict=True)]
        return (changes[STARTED], changes[GOOD], changes[FAILED]) == (2, 1, 1)  # nobody waits for a copy but Envoy

    wait(counted, 10, "the copies to be counted")


def test_a_refused_connection_is_a_request_that_failed(gateway: Gateway) -> None:
    assert [gateway.send("/refused", "200") for _ in range(2)] == [503] * 2
    values = gateway.values("m-cccccccc")
    assert (values[STARTED], values[GOOD], values[FAILED]) == (2, 0, 2)


def test_a_service_without_endpoints_is_a_request_that_failed(gateway: Gateway) -> None:
    assert [gateway.send("/nobody", "200") for _ in range(2)] == [503] * 2
    values = gateway.values("m-dddddddd")
    assert (values[STARTED], values[GOOD], values[FAILED]) == (2, 0, 2)


def test_grpc_errors_are_seen_although_http_says_200(gateway: Gateway) -> None:
    for how in ("grpc-0", "grpc-0", "grpc-3", "grpc-13", "grpc-14"):
        assert gateway.send(MODEL_INFER, how, grpc=True) == 200
    assert gateway.send(MODEL_INFER, "hang", grpc=True) == 200  # the timeout, as a gRPC status
    values = gateway.values("m-aaaaaaaa", 8081)
    assert (values[STARTED], values[GOOD], values[CLIENT], values[FAILED]) == (6, 2, 1, 3)


def test_copies_of_grpc_calls_are_known_to_be_sent_and_no_more(gateway: Gateway) -> None:
    before = gateway.values("m-bbbbbbbb-mirror", 8081) or (0,) * (len(FIELDS) + 1)
    assert gateway.send(MODEL_INFER, "grpc-13", grpc=True) == 200
    wait(
        lambda: gateway.values("m-bbbbbbbb-mirror", 8081)[STARTED] == before[STARTED] + 1, 10, "the copy to be counted"
    )
    assert gateway.values("m-bbbbbbbb-mirror", 8081)[GOOD] == 0
