"""A trial by real processes on the real API server, each of which dies at a numbered write of its decisions.

A retrain has half of the requests, is promoted, and is taken back for what it does then. For both verdicts a process
dies before the record, between record and route, between route and status, and before the alias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.lives import Lives
from tests.controlplane.engine.test_experiments import (
    TRIED,
    actions,
    backend,
    blocks,
    clients,
    experiments,
    retrain,
    running,
    serving,
    status,
)
from tests.controlplane.engine.test_serving import is_ready, trained
from tests.controlplane.server import until
from tests.unit.decide.worlds import merged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controlplane.engine.counting import Clients
    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.engine.scripted import OtherNode
    from tests.controlplane.server import Api, Server

__all__ = ["backend", "clients", "running", "serving"]  # fixtures

WRITES = ("1-record", "1-record 2-route", "2-route 3-status", "5-alias")


class Trial:
    """What must be true of it, whoever has died."""

    def __init__(self, api: Api, namespace: str, node: OtherNode, process: OperatorProcess) -> None:
        self.api = api
        self.namespace = namespace
        self.node = node
        self.lives = Lives(process, self.untrue)
        self.folded = -1

    def untrue(self) -> Iterator[str]:
        records = models.records(self.api, self.namespace)
        route = self.api.get(f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.namespace}/httproutes/spx")
        if int(route["metadata"]["annotations"]["fiduciary.dev/decision"]) > len(records):
            yield "the route carries out a record that does not exist"
        if models.status(self.api, self.namespace)["lastDecision"]["sequence"] > len(records):
            yield "the status names a record that does not exist"
        if not self.node.clients(self.namespace):
            yield "nobody answers clients"
        folded = blocks(self.api, self.namespace)
        if folded < self.folded:
            yield f"{self.folded - folded} blocks were forgotten"
        self.folded = folded


@pytest.mark.timeout(900)
def test_a_promotion_and_the_way_back_by_processes_that_die_at_every_write(
    server: Server,
    namespace: str,
    mlflow: str,
    running: OperatorProcess,
    serving: OtherNode,
    clients: Clients,
) -> None:
    api, node = server.admin, serving
    trial = Trial(api, namespace, node, running)
    network = {"network": node.network}
    api.create(models.model(namespace, change=merged(TRIED, {"promotion": {"rollbackWindow": "10m"}})))
    first = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    retrain(api, namespace)
    second = trained(api, namespace, mlflow)
    until("half of the requests are its", lambda: node.clients(namespace) == {first, second}, 180)
    running.kill()

    def alias() -> str:
        asked = {"name": f"{namespace}.spx", "alias": "champion"}
        found = httpx.get(f"{mlflow}/api/2.0/mlflow/registered-models/alias", params=asked)
        return found.json()["model_version"]["version"]

    trial.lives.at(
        "it is promoted",
        WRITES,
        lambda: node.clients(namespace) == {second} and is_ready(api, namespace) and alias() == "2",
        120,
        **network,
    )
    assert status(api, namespace)["verdict"] == "Promote"
    clients.bad["2"] = 0.5
    trial.lives.at(
        "it is taken back",
        WRITES,
        lambda: node.clients(namespace) == {first} and is_ready(api, namespace) and alias() == "1",
        120,
        **network,
    )
    assert not trial.lives.broken, trial.lives.broken
    assert actions(api, namespace) == ["Accept", "Shift", "Accept", "Shift", "Shift", "Promote", "RollBack"]
    assert status(api, namespace)["ruling"]["reason"] == "HarmAfterPromotion"
    assert len(experiments(api, namespace)) == 1
    shares = [record["traffic"].get("challenger", 0) for record in models.records(api, namespace)[3:5]]
    assert shares == [0, 50]
