"""A real operator process ends, by SIGKILL, before each of its numbered writes; the next one goes on from there.

The whole life of a model is lived through by processes each of which dies at a write that none died at before. After
every death the truths of protocols §1 are checked on what the API server and MLflow really hold. The same with two
writes swapped breaks one of them.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.lives import Lives
from tests.controlplane.engine.node import Node
from tests.controlplane.server import path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Body, Server

FINALIZER = "fiduciary.dev/finalizer"


class Life:
    """One model, and the processes that look after it one after the other."""

    def __init__(self, server: Server, namespace: str, mlflow: str, process: OperatorProcess) -> None:
        self.api = server.admin
        self.namespace = namespace
        self.node = Node(server.admin, namespace, mlflow)
        self.mlflow = httpx.Client(base_url=mlflow)
        self.path = path_of("FinancialModel", namespace, "spx")
        self.lives = Lives(process, self.untrue)
        self.jobs: set[str] = set()

    def model(self) -> Body | None:
        return self.api.find(self.path)

    def aliases(self) -> dict[str, str]:
        name = f"{self.namespace}.spx"
        found = self.mlflow.get("/api/2.0/mlflow/registered-models/get", params={"name": name})
        if found.status_code == 404:
            return {}
        return {item["alias"]: item["version"] for item in found.json()["registered_model"].get("aliases", [])}

    def versions(self) -> list[str]:
        query = {"filter": f"name='{self.namespace}.spx'"}
        found = self.mlflow.get("/api/2.0/mlflow/model-versions/search", params=query).json()
        return [item["version"] for item in found.get("model_versions", [])]

    def untrue(self) -> Iterator[str]:
        """Which truth of the protocols does not hold now."""
        model, records = self.model(), models.records(self.api, self.namespace)
        accepted = {record["to"]["version"] for record in records if record["action"] == "Accept"}
        champion = ((model or {}).get("status") or {}).get("champion")
        self.jobs |= {job["metadata"]["name"] for job in self.node.jobs()}
        if ((model or {}).get("status") or {}).get("lastDecision", {}).get("sequence", 0) > len(records):
            yield "the status names a record that does not exist"
        if champion and champion["version"] not in accepted:
            yield "the status names a champion that no record names"
        if set(self.aliases().values()) - accepted:
            yield "an alias points at a version that no record names"
        if model is None and records[-1:] and records[-1]["action"] != "Retire":
            yield "the model is gone and no record says so"
        if model is not None and accepted and FINALIZER not in model["metadata"].get("finalizers", []):
            yield "a registered model could vanish without cleaning up"


@pytest.fixture
def life(server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]) -> Life:
    return Life(server, namespace, mlflow, operator())


def test_a_life_lived_by_processes_that_die_at_every_write(life: Life) -> None:
    life.api.create(models.model(life.namespace))
    life.lives.until("a Job", lambda: life.node.unfinished())
    job = life.node.unfinished()[0]
    document = life.node.run(job)
    champion = {"version": "1", "digest": document["digest"]}

    def registered() -> bool:
        stored = (life.model() or {}).get("status", {}).get("champion") or {}
        return champion.items() <= stored.items() and life.aliases() == {"champion": "1"} and not life.node.jobs()

    life.lives.until("registered, mirrored and tidied up", registered)
    life.api.delete(life.path)
    life.lives.until("the model is gone", lambda: life.model() is None)
    assert not life.lives.broken
    assert life.jobs <= {job["metadata"]["name"]}, "trained twice"
    assert life.versions() == ["1"]
    assert [record["action"] for record in models.records(life.api, life.namespace)] == ["Accept", "Retire"]
    assert life.aliases() == {}
    kinds = {death.split(".")[0] for death in life.lives.deaths}
    assert {"0-model", "0-version", "1-record", "2-children", "3-status", "5-alias", "release"} <= kinds, (
        life.lives.deaths
    )


@pytest.mark.parametrize(
    ("swap", "truth"),
    [
        (["1-record", "3-status"], "the status names a record that does not exist"),
        (["1-record", "release"], "the model is gone and no record says so"),
    ],
    ids=["record-status", "record-release"],
)
def test_two_writes_swapped_are_noticed(life: Life, swap: list[str], truth: str) -> None:
    def noticed() -> bool:
        return any(truth in broken for broken in life.lives.broken)

    life.api.create(models.model(life.namespace))
    life.lives.until("a Job", lambda: life.node.unfinished(), swap=swap)
    life.node.run(life.node.unfinished()[0])
    life.lives.until("noticed, or registered", lambda: noticed() or life.aliases() == {"champion": "1"}, swap=swap)
    if not noticed():
        life.api.delete(life.path)
        life.lives.until("noticed, or gone", lambda: noticed() or life.model() is None, swap=swap)
    assert noticed(), life.lives.deaths


def test_sigterm_finishes_the_reconcile_under_way_and_hands_the_lease_over(
    server: Server, namespace: str, operator: Callable[..., OperatorProcess]
) -> None:
    process = operator().start().ready()
    server.admin.create(models.suspended(namespace))
    until("settled", lambda: models.settled(server.admin, namespace))
    assert process.process is not None
    os.kill(process.process.pid, signal.SIGTERM)
    assert process.ended() == 0
    lease = server.admin.get("/apis/coordination.k8s.io/v1/namespaces/fiduciary-system/leases/fiduciary-operator")
    assert lease["spec"]["holderIdentity"] == ""
