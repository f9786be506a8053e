"""A real MLflow server process on loopback, for the contract tests of the REST client and for the loop benchmark.

The environment is a function of the sandbox image's locked requirements, so it is built once per lock and kept
outside the checkout. What runs here is what the image runs: same version, same flags that matter to a client.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = Path(__file__).resolve().parents[1] / "sandbox" / "images" / "mlflow" / "requirements.txt"


def cache_root() -> Path:
    """Folder outside the checkout that survives it: $XDG_CACHE_HOME/fiduciary, by default ~/.cache/fiduciary."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fiduciary"


def environment(name: str = "mlflow", lock: Path = LOCK) -> Path:
    """The Python of a virtual environment that holds exactly what ``lock`` names; installs it when it is missing.

    Several processes may ask at once: one installs under a file lock, the others wait for it.
    """
    digest = hashlib.sha256(lock.read_bytes() + repr(sys.version_info[:2]).encode()).hexdigest()[:16]
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    venv = root / f"{name}-{digest}"
    with (root / f"{name}-{digest}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (venv / "complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
            install = [*uv, "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)]
            subprocess.run(["nice", "-n", "10", *install, "--python", str(venv / "bin" / "python")], check=True)
            (venv / "complete").touch()
    return venv / "bin" / "python"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path, *, allowed_hosts: str = "localhost:*,127.0.0.1:*", port: int = 0) -> Iterator[str]:
    """Run a server with its database and artifacts in ``folder``; yields its address, e.g. http://127.0.0.1:5000."""
    python = environment()
    port = port or free_port()
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts", "--allowed-hosts", allowed_hosts]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=settings, start_new_session=True)
    try:
        _wait_until_healthy(address, server, folder / "server.log")
        yield address
    finally:
        os.killpg(server.pid, 15)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def _wait_until_healthy(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"MLflow did not become healthy at {address}:\n{log.read_text()[-4000:]}")
