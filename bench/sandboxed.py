"""What benchmarks measure on the sandbox's real node: a model of its own namespace, and the market it is trained on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from bench import results
from sandbox.market import Market
from tests.e2e.cluster import Cluster
from tests.e2e.node import Node
from tests.e2e.place import ANA, Namespaces, Sandbox, allow_approvals
from tests.e2e.serving import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Measured:
    """Figures by the names of the issue, in their goals' units; rows of the table called ``title``."""

    title: str
    figures: Mapping[str, float]
    rows: list[dict[str, object]]

    def show(self) -> None:
        results.table(self.title, self.rows)


@contextmanager
def served() -> Iterator[tuple[Service, Market]]:
    """A namespace for one model on the sandbox that FIDUCIARY_SANDBOX names, removed in the end.

    Raises LookupError where the sandbox is not up.
    """
    sandbox = Sandbox.running()
    cluster = Cluster(sandbox.kubeconfig, sandbox.kubectl)
    namespaces = Namespaces(cluster)
    with httpx.Client(base_url=sandbox.gateway, timeout=30) as gateway:
        try:
            namespace = namespaces.make("bench")
            allow_approvals(cluster, namespace, ANA)
            yield Service(cluster, gateway, namespace, "spx"), _market(cluster)
        finally:
            namespaces.remove()


def _market(cluster: Cluster) -> Market:
    deployed = cluster.read("deployment", "fiduciary-operator", "fiduciary-system")
    environment = deployed["spec"]["template"]["spec"]["containers"][0]["env"]
    image = next(entry["value"] for entry in environment if entry["name"] == "FIDUCIARY_TRAINER_IMAGE")
    hand = Node(cluster, image)
    hand.start()
    return Market.parse(hand.run(*Market.command()))
