"""The servers that are compared, each a process on one processor; the client has the other one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
STOCK_PYTHON = "/opt/stock/bin/python"
STOCK_MLSERVER = "/opt/stock/bin/mlserver"
NAME = "quant.bench"


class Server:
    """A process, pinned.

    Attributes:
        pid: of the process.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=file)
        self._log = log
        self.pid = self._process.pid

    def wait_until(self, port: int, seconds: float = 120.0) -> None:
        """Until somebody listens on the port; raises RuntimeError with the log's end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"nobody listens on {port}:\n{self._log.read_text()[-3000:]}")

    def pin(self, processor: int) -> None:
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), {processor})

    def cpu_seconds(self) -> float:
        """Time on a processor so far, all threads; from the scheduler, in nanoseconds."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def document(folder: Path, sink: int | None) -> str:
    """What the operator would tell our server."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return json.dumps(
        {
            "contractVersion": 1, "namespace": "quant", "model": "bench", "version": "1", "digest": f"sha256:{digest}",
            "source": {"uri": f"file://{folder}"}, "latencyEdges": [0.005, 0.05, 0.25, 1.0],
            "records": {"url": None if sink is None else f"http://127.0.0.1:{sink}/v1/records"}, "threads": 1,
        }
    )  # fmt: skip


def ours(folder: Path, port: int, scratch: Path, sink: int | None, variant: str | None = None) -> Server:
    """Our server as it ships, or a variant of it; REST on ``port``, gRPC and metrics on the two after it."""
    program = ["fiduciary_server"] if variant is None else [f"{__package__}.variants", variant]
    options = ["serve", "--folder", str(folder), "--host", "127.0.0.1", "--rest-port", str(port), "--grpc-port",
               str(port + 1), "--metrics-port", str(port + 2)]  # fmt: skip
    env = {"FIDUCIARY_SERVING": document(folder, sink)}
    return Server([sys.executable, "-m", *program, *options], env, scratch / f"{variant or 'ours'}.log")


def our_model_in_stock_mlserver(folder: Path, port: int, scratch: Path) -> Server:
    command = [sys.executable, "-m", f"{__package__}.variants", "stock", str(folder), str(port)]
    return Server(command, {"FIDUCIARY_SERVING": document(folder, None)}, scratch / "stock-transports.log")


def stock_mlflow(model: Path, port: int, scratch: Path) -> Server:
    """mlserver-mlflow with the same ONNX file, as `mlserver start` runs it."""
    folder = scratch / "stock"
    folder.mkdir()
    quiet = {"PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [STOCK_PYTHON, str(HERE / "stock_model.py"), str(model), str(folder), str(port)]
    subprocess.run(command, env={**os.environ, **quiet}, check=True, stdout=subprocess.DEVNULL)
    return Server([STOCK_MLSERVER, "start", str(folder)], quiet, scratch / "stock.log")


def script(name: str, *arguments: str, scratch: Path) -> Server:
    return Server([sys.executable, "-m", f"{__package__}.{name}", *arguments], {}, scratch / f"{name}.log")


@contextlib.contextmanager
def closing(servers: Mapping[str, Server]) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers.values():
            server.close()
