"""Requests of clients: split and copied as the Gateway's controller, or Seldon's mesh, last took it over, counted by
pods that a real Prometheus scrapes each second."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.controlplane.engine.scripted import OtherNode
from tests.prometheus.server import SCRAPE, TIMEOUT, Exporter, Server, Target, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controlplane.engine.serving import ServingNode
    from tests.controlplane.server import Api

PAUSE = 0.05
PODS = {"labelSelector": "fiduciary.dev/component in (serving,kserve)"}
SERVER = "fiduciary-0"


@dataclass
class ServerPod(Target):
    """A pod of Seldon's Server: what each version that it has loaded counts, under the agent's name for it.

    ``moment``: held while requests are counted for all of them; a scrape sees them at one moment.
    """

    versions: dict[str, Target] = field(default_factory=dict[str, Target])
    moment: threading.Lock = field(default_factory=threading.Lock)

    def exposition(self) -> str | None:
        with self.moment:
            return self._exposition()

    def _exposition(self) -> str:
        lines = [f"process_start_time_seconds {self.started:.2f}"]
        for internal, target in list(self.versions.items()):
            own = f'model_internal="{internal}"'
            lines.append(f"fiduciary_version_start_time_seconds{{{own}}} {target.started:.2f}")
            counted = (target.exposition() or "").splitlines()
            lines += [line.replace("{", f"{{{own},") for line in counted if line.startswith("fiduciary_")]
        return "\n".join(lines) + "\n"


class Clients:
    """Sends ``rate`` requests a second to one model; ``bad``: share that fails, by the version's number."""

    def __init__(self, api: Api, node: ServingNode, namespace: str, folder: Path) -> None:
        self.rate = 100_000
        self.bad: dict[str, float] = {}
        self.also: tuple[Target, ...] = ()  # scraped beside the pods
        self._api = api
        self._node = node
        self._namespace = namespace
        self._exporter = Exporter()
        self.prometheus = Server(program(), folder, self._exporter)
        self._targets: dict[str, tuple[str, str, Target]] = {}  # pod, or Model -> version's name, number, counts
        self._server = ServerPod(namespace, SERVER)
        self._scraped: frozenset[str] = frozenset()
        self._mirrored = ""
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._look)]

    def settings(self) -> dict[str, object]:
        return {
            "prometheus": {
                "url": self.prometheus.url,
                "scrapeSeconds": SCRAPE,
                "scrapeTimeoutSeconds": TIMEOUT,
                "timeoutSeconds": 5,
            }
        }

    def start(self) -> Clients:
        self.prometheus.start()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
        self.prometheus.kill()
        self._exporter.close()

    def _look(self) -> None:
        """New pods are scraped, and copies go where the route says."""
        while not self._ended.wait(0.3):
            found = {**self._pods(), **self._loaded()}
            for name in set(self._targets) - set(found):
                del self._targets[name]
            for name in set(found) - set(self._targets):
                version, number = found[name]
                counts = Target(self._namespace, name)
                counts.add(success=0, server_error=0)
                self._targets[name] = version, number, counts
            targets = dict(self._targets)
            loaded = self._loaded()
            self._server.versions = {f"{name}_1": targets[name][2] for name in loaded if name in targets}
            pods = tuple(target for name, (_, _, target) in targets.items() if name not in loaded)
            scraped = (*pods, self._server, *self.also) if loaded else (*pods, *self.also)
            if frozenset(target.pod for target in scraped) != self._scraped:
                self._scraped = frozenset(target.pod for target in scraped)
                self.prometheus.scrape(scraped)
            self._mirrored = self._node.copied(self._namespace)

    def _pods(self) -> dict[str, tuple[str, str]]:
        """Pods of a version's own -> its name and number."""
        items = self._api.request("GET", f"/api/v1/namespaces/{self._namespace}/pods", params=PODS)["items"]
        names = {pod["metadata"]["name"]: pod["metadata"]["labels"]["fiduciary.dev/version"] for pod in items}
        return {name: (name.rsplit("-", 2)[0].removesuffix("-predictor"), number) for name, number in names.items()}

    def _loaded(self) -> dict[str, tuple[str, str]]:
        """Versions in the Server -> name and number."""
        models = self._node.models if isinstance(self._node, OtherNode) else {}
        mine = {key.partition("/")[2]: number for key, (number, _) in models.items() if key.startswith(self._namespace)}
        return {name: (name, number) for name, number in mine.items()}

    def _send(self) -> None:
        while not self._ended.wait(PAUSE):
            each = round(self.rate * PAUSE)
            shares = self._node.shares(self._namespace)
            total = sum(shares.values())
            targets = list(self._targets.values())
            with self._server.moment:
                for name, number, target in targets:
                    pods = sum(other == name for other, _, _ in targets)
                    count = each * shares.get(name, 0) // total if total else 0
                    count = (count + (each if name == self._mirrored else 0)) // max(1, pods)
                    failed = round(count * self.bad.get(number, 0.02))
                    if count:
                        target.add(success=count - failed, server_error=failed)
