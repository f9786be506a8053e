"""A real Alertmanager on loopback, and the person that it notifies: a webhook that keeps what it was told."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus.server import free_port, wait


def program() -> str:
    """The binary that `make prometheus` brings, or one on the PATH."""
    found = (
        os.environ.get("FIDUCIARY_ALERTMANAGER")
        or shutil.which("prometheus-alertmanager")
        or shutil.which("alertmanager")
    )
    if found is None:
        pytest.fail(
            "no Alertmanager: run `make prometheus`, which brings Debian's, or put an `alertmanager` on the PATH"
        )
    return found


def _command(found: str) -> list[str]:
    """How to start it. Debian's looks for its templates below /usr/share and nowhere else: where the package is only
    unpacked, its own ``share`` lies there, for this process alone."""
    share = Path(found).resolve().parents[1] / "share"
    mine = share / "prometheus" / "alertmanager" / "default.tmpl"
    if not mine.exists() or share == Path("/usr/share"):
        return [found]
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *root, "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', str(share), found]


class Person:
    """What Alertmanager's webhook notified: (status, labels) of each alert, in order."""

    def __init__(self) -> None:
        self.notified: list[tuple[str, dict[str, str]]] = []
        person = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                person.notified += [(alert["status"], alert["labels"]) for alert in told["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def heard(self, status: str, monitor: str) -> bool:
        return any(one == status and labels["monitor"] == monitor for one, labels in self.notified)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Server:
    """One Alertmanager. ``web``: its web configuration (TLS, users); ``tls``: how to reach it then."""

    def __init__(self, folder: Path, person: Person, web: dict[str, Any] | None = None, ca: Path | None = None) -> None:
        self._folder = folder
        self._tls = None if ca is None else ssl.create_default_context(cafile=str(ca))
        self.port = free_port()
        self.url = f"{'http' if ca is None else 'https'}://127.0.0.1:{self.port}"
        route = {"receiver": "person", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        receiver = {"name": "person", "webhook_configs": [{"url": person.address, "send_resolved": True}]}
        (folder / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
        options = [
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        if web is not None:
            (folder / "web.yml").write_text(json.dumps(web))
            options.append(f"--web.config.file={folder / 'web.yml'}")
        with (folder / "alertmanager.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_command(program()), *options], stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "2"}
            )
        wait(self._ready, 60, f"Alertmanager to become ready, see {folder / 'alertmanager.log'}")

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "alertmanager.log").read_text()
        try:
            self._get("/-/ready")
        except urllib.error.HTTPError as error:
            return error.code == 401  # it asks who we are
        except (urllib.error.URLError, OSError):
            return False
        return True

    def active(self) -> list[dict[str, Any]]:
        return json.loads(self._get("/api/v2/alerts"))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=5, context=self._tls) as answer:
            return answer.read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(20)
