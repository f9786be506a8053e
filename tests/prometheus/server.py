"""A real Prometheus on loopback, and targets that it scrapes and that a test scripts."""

from __future__ import annotations

import http.server
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SCRAPE = 1  # s
TIMEOUT = 1
MAX_SAMPLES = 20_000


@dataclass
class Target:
    """One scrape target. ``text`` makes its exposition; what it served is kept with the time of the request."""

    namespace: str
    pod: str
    counts: dict[str, float] = field(default_factory=dict)
    extra: str = ""
    failing: bool = False
    started: float = field(default_factory=time.time)
    served: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> str:
        return f"/{self.namespace}/{self.pod}"

    def add(self, **counts: float) -> None:
        with self.lock:
            for name, count in counts.items():
                self.counts[name] = self.counts.get(name, 0) + count

    def restart(self) -> None:
        with self.lock:
            self.counts = dict.fromkeys(self.counts, 0.0)
            self.started = time.time()

    def exposition(self) -> str | None:
        with self.lock:
            if self.failing:
                return None
            counts = dict(self.counts)
            self.served.append((time.time(), counts))
            lines = [f"process_start_time_seconds {self.started:.2f}"]
            started = counts.get("success", 0) + counts.get("server_error", 0)
            own = 'model="quant.m",version="7",digest="aaaaaaaa",protocol="rest"'
            lines.append(f"fiduciary_requests_started_total{{{own}}} {_number(started)}")
            lines.append(f"fiduciary_request_seconds_count{{{own}}} {_number(started)}")
            for outcome in ("success", "server_error", "client_error"):
                value = _number(counts.get(outcome, 0))
                lines.append(f'fiduciary_requests_total{{{own},outcome="{outcome}"}} {value}')
            lines.append(f'fiduciary_request_seconds_bucket{{{own},le="0.25"}} {_number(started)}')
            return "\n".join(lines) + "\n" + self.extra


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


class Exporter:
    """All targets behind one port."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target = exporter.targets.get(self.path)
                text = None if target is None else target.exposition()
                self.send_response(503 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Server:
    """One Prometheus over one folder; it can be killed and started again."""

    def __init__(self, program: str, folder: Path, exporter: Exporter) -> None:
        self._program = program
        self._folder = folder
        self._exporter = exporter
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._targets = folder / "targets.json"
        self.scrape(())
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": f"{SCRAPE}s", "scrape_timeout": f"{TIMEOUT}s"},
                    "scrape_configs": [
                        {
                            "job_name": "pods",
                            "honor_labels": False,
                            "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "1s"}],
                            "relabel_configs": [{"source_labels": ["path"], "target_label": "__metrics_path__"}],
                            "metric_relabel_configs": [{"regex": "path", "action": "labeldrop"}],
                        }
                    ],
                }
            )
        )

    def scrape(self, targets: tuple[Target, ...]) -> None:
        """From now on scrape these. The file appears whole: Prometheus watches it."""
        for target in targets:
            self._exporter.targets[target.path] = target
        groups = [
            {
                "targets": [self._exporter.address],
                "labels": {"namespace": target.namespace, "pod": target.pod, "path": target.path},
            }
            for target in targets
        ]
        part = self._targets.with_suffix(".part")
        part.write_text(json.dumps(groups))
        part.rename(self._targets)

    def start(self) -> None:
        log = (self._folder / "prometheus.log").open("ab")
        self._process = subprocess.Popen(
            [
                self._program,
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--query.max-samples={MAX_SAMPLES}",
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GOMAXPROCS": "2"},
        )
        log.close()
        wait(self.ready, 30, f"Prometheus to become ready, see {self._folder / 'prometheus.log'}")

    def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def scrapes(self, target: Target) -> bool:
        """Whether it is among the active targets; discovery takes in changes every five seconds."""
        with urllib.request.urlopen(f"{self.url}/api/v1/targets?state=active", timeout=5) as answer:
            active = json.load(answer)["data"]["activeTargets"]
        return any(found["labels"].get("pod") == target.pod for found in active)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None


def wait(condition, seconds: float, what: str) -> None:  # type: ignore[no-untyped-def]
    """Until ``condition()``; a failure says what was waited for."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def program() -> str:
    """The binary that `make prometheus` brings, or one on the PATH."""
    found = os.environ.get("FIDUCIARY_PROMETHEUS") or shutil.which("prometheus")
    if found is None:
        pytest.fail("no Prometheus: run `make prometheus`, which brings Debian's, or put a `prometheus` on the PATH")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
