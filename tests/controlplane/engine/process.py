"""An operator process under test: started, watched, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.controlplane.server import until

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[3]

#: Shorter than in production, so that a failover is a matter of seconds.
LEASE = {"duration": 6.0, "renewDeadline": 4.0, "retry": 0.5}


@dataclass
class OperatorProcess:
    """``folder`` takes its settings and logs; ``kubeconfig`` says who it is."""

    kubeconfig: Path
    folder: Path
    identity: str = "operator-a"
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self, **options: Any) -> OperatorProcess:
        """Start it; options are those of the entry point (survive, swap)."""
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "config.yaml"
        settings.write_text(yaml.safe_dump({"lease": LEASE, **self.config}))
        environment = {
            # The operator refuses settings that it does not know; make exports some of its own.
            **{name: value for name, value in os.environ.items() if not name.startswith("FIDUCIARY_")},
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "KUBECONFIG": str(self.kubeconfig),
            "FIDUCIARY_CONFIG": str(settings),
            "FIDUCIARY_IDENTITY": self.identity,
            "FIDUCIARY_LISTEN": "127.0.0.1:0",
            **self.environment,
        }
        command = [sys.executable, "-m", "tests.controlplane.engine.entry", json.dumps(options)]
        with self.log.open("wb") as log, self.output.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=log, cwd=ROOT)
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"{self.identity}-{self.starts}.log"

    @property
    def output(self) -> Path:
        return self.folder / f"{self.identity}-{self.starts}.out"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def writes(self) -> list[str]:
        """Names of the numbered writes that this life began."""
        lines = self.output.read_text().splitlines()
        return [line.removeprefix("write ") for line in lines if line.startswith("write ")]

    def ready(self, seconds: float = 60.0) -> OperatorProcess:
        until(f"{self.identity} is ready; its log: {self.log}", lambda: self.get("/readyz") == (200, "ok"), seconds)
        return self

    def leading(self) -> bool:
        return 'name="fiduciary-operator"} 1.0' in self.get("/metrics")[1]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an endpoint; (0, "") while there is no answer."""
        assert self.process is not None
        ports = [line.split()[1] for line in self.output.read_text().splitlines() if line.startswith("port ")]
        if not ports:
            assert self.alive, f"the operator ended:\n{self.log.read_text()[-3000:]}"
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def ended(self, seconds: float = 60.0) -> int:
        """Wait until it ended by itself; the exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)
