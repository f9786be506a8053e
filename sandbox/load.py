"""Requests at a fixed clock, whatever becomes of the earlier ones, and a record of each.

    with load.running(Target(url, headers), rate=250) as client:
        client.until_answered(200)
        ...                                   # drain, promote, kill
    print(client.report().failed)

Open loop: request i belongs at start + i / rate, and its latency counts from that moment, not from when a busy client
came round to it; a service that stalls is asked on, as real clients do, and its queue shows up in the percentiles
(Schroeder, Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006). The client is a process of
its own, so that what the caller does meanwhile does not disturb its clock. It ends by itself after `seconds`.
"""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Target:
    """What is asked: the bodies, one after the other and round again.

    url: for POST, or `host:port` with grpc, where bodies are serialised ModelInferRequests and headers the metadata.
    timeout: of one request, in seconds. dwell: seconds for which the same body is sent; 0: each request has the next.
    """

    url: str
    bodies: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict[str, str])
    timeout: float = 10.0
    grpc: bool = False
    dwell: float = 0.0


@dataclass(frozen=True)
class Sent:
    """One request.

    at: when it belonged on the wire, seconds since the epoch. latency: from then to the last byte of the answer, in
    seconds. late: how long after `at` this client began it. status: of the HTTP answer (gRPC: 200 for OK), 0 where none
    came. version: which version answered. error: why there was no answer.
    """

    at: float
    latency: float
    late: float
    status: int
    version: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        return self.status != 200


@dataclass(frozen=True)
class Report:
    """All requests that have ended, in the order of their times."""

    sent: tuple[Sent, ...]

    @property
    def failed(self) -> tuple[Sent, ...]:
        return tuple(one for one in self.sent if one.failed)

    @property
    def rate(self) -> float:
        """Requests per second that were really sent."""
        if len(self.sent) < 2:
            return 0.0
        return (len(self.sent) - 1) / (self.sent[-1].at - self.sent[0].at)

    @property
    def versions(self) -> dict[str, int]:
        """How many requests each version answered."""
        counted: dict[str, int] = {}
        for one in self.sent:
            counted[one.version] = counted.get(one.version, 0) + 1
        return counted

    def latency(self, share: float) -> float:
        """The quantile of the latencies at `share`, in seconds (nearest rank); NaN where nothing was sent."""
        ordered = sorted(one.latency for one in self.sent)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan

    def since(self, moment: float, until: float = math.inf) -> Report:
        return Report(tuple(one for one in self.sent if moment <= one.at < until))

    def last_from(self, version: str) -> float:
        """When the last request that this version answered was sent; minus infinity where it answered none."""
        return max((one.at for one in self.sent if one.version == version), default=-math.inf)

    def first_from(self, version: str) -> float:
        """When the first one was sent; infinity where it answered none."""
        return min((one.at for one in self.sent if one.version == version), default=math.inf)

    def _when(self) -> str:
        """When the first and the last failed request were sent."""
        if not self.failed:
            return ""
        first, last = (
            f"{datetime.fromtimestamp(one.at, UTC):%H:%M:%S.%f}"[:-3] for one in (self.failed[0], self.failed[-1])
        )
        return f" from {first} to {last}"

    def summary(self) -> str:
        """One line for people."""
        if not self.sent:
            return "nothing was sent"
        failures: dict[str, int] = {}
        for one in self.failed:
            what = one.error or f"HTTP {one.status}"
            failures[what] = failures.get(what, 0) + 1
        return (
            f"{len(self.sent)} requests at {self.rate:.0f}/s, {len(self.failed)} failed {failures or ''}{self._when()},"
            f" p50 {self.latency(0.5) * 1e3:.1f} ms, p99 {self.latency(0.99) * 1e3:.1f} ms, by version {self.versions},"
            f" the client itself at most {max(one.late for one in self.sent) * 1e3:.0f} ms late"
        )


class Client:
    """A running client, read while it runs."""

    def __init__(self, process: subprocess.Popen[str], records: Path) -> None:
        self._process = process
        self._records = records
        self._read = 0
        self._sent: list[Sent] = []

    def report(self) -> Report:
        """What has ended so far."""
        with self._records.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._sent.append(Sent(*json.loads(line)))
        self._sent.sort(key=lambda one: one.at)
        return Report(tuple(self._sent))

    def until(self, holds: Callable[[Report], bool], what: str, within: float = 60) -> Report:
        """Wait until the report is such. Raises StepFailed with what it was instead."""
        deadline = time.monotonic() + within
        while True:
            self.check()
            report = self.report()
            if holds(report):
                return report
            if time.monotonic() > deadline:
                raise StepFailed(f"{what}: not within {within:.0f} s; {report.summary()}")
            time.sleep(0.1)

    def until_answered(self, more: int, version: str | None = None, within: float = 60) -> Report:
        """Wait until `more` requests sent from now on were answered well (by this version)."""
        now = time.time()

        def enough(report: Report) -> bool:
            good = (one for one in report.sent if one.at >= now and not one.failed)
            return sum(version in (None, one.version) for one in good) >= more

        return self.until(enough, f"{more} answers of version {version or 'any'}", within)

    def check(self) -> None:
        """Raises StepFailed when the client ended by itself."""
        if self._process.poll() not in (None, 0):
            raise StepFailed(f"the load's client ended with exit code {self._process.returncode}")

    def stop(self) -> Report:
        """Send nothing new, wait for what is on its way, and report."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired as error:
            raise StepFailed("the load's client did not end within 60 s after its last request was due") from error
        self.check()
        return self.report()


@contextmanager
def running(
    target: Target, *, rate: float | None = None, workers: int | None = None, seconds: float = 600
) -> Iterator[Client]:
    """A client that sends `rate` requests per second, or keeps `workers` requests on their way (closed loop)."""
    if (rate is None) == (workers is None):
        raise ValueError("give either rate (open loop) or workers (closed loop)")
    with tempfile.TemporaryDirectory(prefix="fiduciary-load-") as folder:
        records = Path(folder) / "records"
        records.touch()
        plan = {
            **asdict(target),
            "bodies": [base64.b64encode(body).decode() for body in target.bodies],
            "rate": rate,
            "workers": workers,
            "seconds": seconds,
            "records": str(records),
        }
        argv = [sys.executable, "-m", "sandbox.load_client"]
        path = os.pathsep.join(filter(None, (str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(plan))
            process.stdin.close()
            client = Client(process, records)
            yield client
            if process.poll() is None:
                client.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
