"""A scorer process with real HTTP, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.outcomes.issuer import AUDIENCE, ISSUER, Issuer
from tests.outcomes.worlds import ROOT, at

if TYPE_CHECKING:
    from pathlib import Path

WRITER = "system:serviceaccount:quant:writer"
JOB = "system:serviceaccount:quant:comparison"
OPERATOR = "system:serviceaccount:fiduciary-system:operator"
ISSUED = Issuer()
ISSUED.add("one", elliptic=True)


class Process:
    """Starts the scorer on ports of its own, and again after it died.

    Args:
        store: the configuration's store; SQLite in ``folder`` where none is given.
    """

    def __init__(self, folder: Path, store: dict[str, Any] | None = None, **changes: Any) -> None:
        self.folder = folder
        self.clock = folder / "clock"
        self.set_clock(at("2018-01-01"))
        (folder / "jwks.json").write_bytes(ISSUED.jwks())
        self.settings: dict[str, Any] = {
            "contractVersion": 1,
            "namespace": "quant",
            "store": store or {"sqlite": str(folder / "outcomes.db")},
            "auth": {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "keys": {"file": str(folder / "jwks.json")},
                "subjects": {
                    "records": None, "read": None, "outcomes": [WRITER], "ledgers": [JOB], "define": [OPERATOR],
                },
            },
            "host": "127.0.0.1", "port": 0, "metricsPort": 0,
            **changes,
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "log"

    def set_clock(self, now: float) -> None:
        written = self.clock.with_suffix(".new")
        written.write_text(repr(now))
        written.replace(self.clock)

    def start(self, *, ready: bool = True, **options: Any) -> None:
        """Until it listens; until its store is open where ``ready``."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.outcomes.entry", json.dumps({"clock": str(self.clock), **options})],
                env={
                    **os.environ,
                    "PYTHONPATH": f"{ROOT / 'trainer_image'}:{ROOT}",
                    "FIDUCIARY_OUTCOMES": json.dumps(self.settings),
                },
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the scorer did not start:\n{self.log.read_text()}"
        self.port, self.metrics_port = json.loads(line)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)
        self.metrics_client = httpx.Client(base_url=f"http://127.0.0.1:{self.metrics_port}", timeout=30.0)
        while ready and self.process.poll() is None and self.get("/readyz").status_code != 200:
            time.sleep(0.02)  # the store is opened by another thread

    def get(self, path: str, **headers: str) -> httpx.Response:
        try:
            return self.client.get(path, headers=headers)
        except httpx.TransportError:
            return httpx.Response(599)

    def send(self, method: str, path: str, body: Any, subject: str | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        if subject is not None:
            headers["Authorization"] = f"Bearer {ISSUED.token(subject)}"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.request(method, path, content=content, headers=headers)

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels as they are written."""
        text = self.metrics_client.get("/metrics").text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.wait()

    def terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()

    def wait(self) -> int:
        assert self.process is not None
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.client.close()
        self.metrics_client.close()
        return code
