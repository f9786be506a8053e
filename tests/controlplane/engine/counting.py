"""Requests of clients: split and copied as the Gateway's controller last took it over, counted by pods that a real
Prometheus scrapes each second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.controlplane.engine.serving import SERVES, ServingNode, routes
from tests.prometheus.server import SCRAPE, TIMEOUT, Exporter, Server, Target, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controlplane.server import Api

PAUSE = 0.05


class Clients:
    """Sends ``rate`` requests a second to one model; ``bad``: share that fails, by the version's number."""

    def __init__(self, api: Api, node: ServingNode, namespace: str, folder: Path) -> None:
        self.rate = 100_000
        self.bad: dict[str, float] = {}
        self._api = api
        self._node = node
        self._namespace = namespace
        self._exporter = Exporter()
        self.prometheus = Server(program(), folder, self._exporter)
        self._targets: dict[str, tuple[str, str, Target]] = {}  # pod -> Service, version, counts
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
            path = f"/api/v1/namespaces/{self._namespace}/pods"
            pods = {pod["metadata"]["name"]: pod for pod in self._api.request("GET", path, params=SERVES)["items"]}
            if set(pods) != set(self._targets):
                for name in set(self._targets) - set(pods):
                    del self._targets[name]
                for name in set(pods) - set(self._targets):
                    version = pods[name]["metadata"]["labels"]["fiduciary.dev/version"]
                    counts = Target(self._namespace, name)
                    counts.add(success=0, server_error=0)
                    self._targets[name] = name.rsplit("-", 2)[0], version, counts
                self.prometheus.scrape(tuple(target for _, _, target in self._targets.values()))
            if self._api.exists(routes(self._namespace, "spx")):
                rule = self._api.get(routes(self._namespace, "spx"))["spec"]["rules"][0]
                copies = [one["requestMirror"]["backendRef"]["name"] for one in rule.get("filters") or []]
                self._mirrored = copies[0].removesuffix("-mirror") if copies else ""

    def _send(self) -> None:
        number = 0
        while not self._ended.wait(PAUSE):
            number += 1
            each = round(self.rate * PAUSE)
            shares = dict(self._node.forces.get(f"{self._namespace}.spx", []))
            total = sum(shares.values())
            for service, version, target in list(self._targets.values()):
                pods = sum(other == service for other, _, _ in self._targets.values())
                count = each * shares.get(service, 0) // total if total else 0
                count = (count + (each if service == self._mirrored else 0)) // max(1, pods)
                failed = round(count * self.bad.get(version, 0.02))
                if count:
                    target.add(success=count - failed, server_error=failed)
