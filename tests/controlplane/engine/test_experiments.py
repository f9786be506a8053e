"""A retrain that is tried on live requests, by the real process on the real API server, with a real Prometheus.

Written once for every backend: with Seldon and KServe on their real CRDs, whose controllers are scripted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.engine.experiments.kept import Stored, stored
from tests.controlplane.engine import models
from tests.controlplane.engine.counting import Clients
from tests.controlplane.engine.scripted import OtherNode, seldon, services
from tests.controlplane.engine.scripted import server as seldon_server
from tests.controlplane.engine.test_backends import ARTIFACTS, KSERVE, SELDON, install
from tests.controlplane.engine.test_serving import SERVED, is_ready, trained
from tests.controlplane.server import GROUP, path_of, until
from tests.unit.decide.worlds import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Body, Server

TEMPLATE: dict[str, Any] = {
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 1},
            {"name": "half", "weight": 50, "minBlocks": 4},
        ]
    },
    "evidence": {"block": "3s", "dispersion": "1"},
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.05"}}],
    "stopping": {"minDuration": "5s", "maxDuration": "1d"},
}
TRIED = merged(
    SERVED,
    {
        "data": {"asOf": "Rolling"},
        "serving": {"replicas": 1},
        "promotion": {"mode": "Auto", "rollbackWindow": "15s", "experiment": TEMPLATE},
    },
)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """What serves; a test that is to run on others is parametrised with it."""
    return str(getattr(request, "param", "Gateway"))


@pytest.fixture
def serving(server: Server, namespace: str, backend: str) -> Iterator[OtherNode]:
    if backend == "Seldon":
        install(server, SELDON, seldon(namespace, "servers"))
        server.admin.create(seldon_server(namespace), namespace=namespace)
    elif backend == "KServe":
        install(server, KSERVE, services(namespace))
    node = OtherNode(server.admin, namespace)
    node.serve_with(backend)
    node.start().install()
    yield node
    node.stop()


@pytest.fixture
def running(
    operator: Callable[..., OperatorProcess], serving: OtherNode, clients: Clients, mlflow: str
) -> OperatorProcess:
    """An operator that knows all of these."""
    connections = {"mlflow": {"trackingUri": mlflow, **ARTIFACTS}}
    process = operator(**serving.settings(), **clients.settings(), connections=connections)
    return process.start(network=serving.network).ready()


@pytest.fixture
def clients(server: Server, namespace: str, serving: OtherNode, tmp_path: Path) -> Iterator[Clients]:
    found = Clients(server.admin, serving, namespace, tmp_path)
    try:
        yield found.start()
    finally:
        found.stop()


def experiments(api: Api, namespace: str) -> list[Body]:
    return api.get(f"/apis/{GROUP}/namespaces/{namespace}/modelexperiments")["items"]


def mx(api: Api, namespace: str) -> Body:
    found = experiments(api, namespace)
    return found[0] if found else {}


def status(api: Api, namespace: str) -> Body:
    return mx(api, namespace).get("status") or {}


def evidence(api: Api, namespace: str) -> Stored | None:
    body = mx(api, namespace)
    found = ModelExperiment.model_validate(body).status.evidence if body else None
    read = None if found is None else stored(found)
    assert read is None or isinstance(read, Stored), read
    return read


def blocks(api: Api, namespace: str) -> int:
    found = evidence(api, namespace)
    return -1 if found is None else found.state.evidence.last


def actions(api: Api, namespace: str) -> list[str]:
    return [record["action"] for record in models.records(api, namespace)]


def retrain(api: Api, namespace: str) -> None:
    api.create(
        {
            "apiVersion": GROUP,
            "kind": "ModelApproval",
            "metadata": {"name": "again", "namespace": namespace},
            "spec": {"modelRef": {"name": "spx"}, "decision": "Retrain", "approver": "ana", "reason": "a test"},
        }
    )


@pytest.mark.timeout(600)
def test_an_equal_retrain_is_promoted_though_the_operator_is_killed_again_and_again(
    server: Server,
    namespace: str,
    mlflow: str,
    running: OperatorProcess,
    serving: OtherNode,
) -> None:
    api, process = server.admin, running
    api.create(models.model(namespace, change=TRIED))
    first = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    retrain(api, namespace)
    second = trained(api, namespace, mlflow)
    until("the experiment has begun", lambda: blocks(api, namespace) >= 0, 120)
    assert mx(api, namespace)["spec"]["purpose"] == "Refresh"
    assert mx(api, namespace)["metadata"]["finalizers"] == ["fiduciary.dev/finalizer"]
    until("copies go to it", lambda: status(api, namespace).get("step") == "shadow", 60)
    for kill in range(4):
        seen, chain = blocks(api, namespace), evidence(api, namespace)
        until(f"blocks go on ({kill})", lambda seen=seen: blocks(api, namespace) > seen, 60)
        process.kill()
        before = evidence(api, namespace)
        assert before is not None
        assert chain is not None
        process.start(network=serving.network)
    until("it is promoted", lambda: actions(api, namespace)[-1] == "Promote", 180)
    until("clients get it", lambda: serving.clients(namespace) == {second}, 60)
    until("the experiment is over", lambda: status(api, namespace).get("evidence", {}).get("counters") == "", 90)
    assert (status(api, namespace)["phase"], status(api, namespace)["verdict"]) == ("Promoted", "Promote")
    assert actions(api, namespace) == ["Accept", "Shift", "Accept", "Shift", "Shift", "Promote"]
    record = models.records(api, namespace)[-1]
    assert record["evidence"]["summary"]["guardrails"]["errors"][0] == "ErrorRate"
    assert record["cause"]["experiment"] == "spx-2"
    assert first != second
    until("it is ready again", lambda: is_ready(api, namespace), 60)
    shown = server.kubectl(namespace)("get", "mx")
    print(shown)
    assert "Promoted" in shown
    metrics = process.get("/metrics")[1]
    assert 'fiduciary_prometheus_queries_total{template="Runtime"}' in metrics
    assert "fiduciary_experiments_counted 0.0" in metrics
    # what was ruled is not judged again, and deleting it is held by nothing
    api.delete(path_of("ModelExperiment", namespace, "spx-2"))
    until("it is gone", lambda: not experiments(api, namespace), 30)


@pytest.mark.timeout(600)
def test_a_worse_one_is_rolled_back_and_prometheus_may_be_away_meanwhile(
    server: Server,
    namespace: str,
    mlflow: str,
    running: OperatorProcess,
    serving: OtherNode,
    clients: Clients,
) -> None:
    assert running.alive
    api = server.admin
    slow = merged(TRIED, {"promotion": {"experiment": merged(TEMPLATE, {"stopping": {"minDuration": "1h"}})}})
    api.create(models.model(namespace, change=slow))
    first = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    retrain(api, namespace)
    trained(api, namespace, mlflow)
    until("half of the requests are its", lambda: status(api, namespace).get("step") == "half", 180)
    counted = blocks(api, namespace)
    until("blocks are counted there", lambda: blocks(api, namespace) > counted, 60)
    clients.prometheus.kill()
    until("it holds blind", lambda: status(api, namespace).get("reason") == "BothDark", 60)
    assert "PrometheusUnreachable" in status(api, namespace)["dataHealth"]["message"]
    until("the champion answers all", lambda: serving.clients(namespace) == {first}, 60)
    clients.prometheus.start()
    seen = blocks(api, namespace)
    until("it sees again", lambda: blocks(api, namespace) > seen, 90)
    until("the challenger has its share again", lambda: len(serving.clients(namespace)) == 2, 90)
    assert "ruling" not in status(api, namespace)
    clients.bad["2"] = 0.5
    until("it is rolled back", lambda: actions(api, namespace)[-1] == "RollBack", 120)
    until("the champion answers all", lambda: serving.clients(namespace) == {first}, 60)
    until("it is over", lambda: status(api, namespace).get("evidence", {}).get("counters") == "", 60)
    assert status(api, namespace)["ruling"]["reason"] == "HarmShown"
    assert (status(api, namespace)["phase"], status(api, namespace)["weight"]) == ("RolledBack", 0)
    print(server.kubectl(namespace)("get", "mx", "-o", "wide"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["Seldon", "KServe"], indirect=True)
def test_on_other_backends_it_is_promoted_and_taken_back_by_what_it_does_then(
    server: Server,
    namespace: str,
    mlflow: str,
    backend: str,
    running: OperatorProcess,
    serving: OtherNode,
    clients: Clients,
) -> None:
    api = server.admin
    change = {"serving": {"backend": backend}, "promotion": {"rollbackWindow": "10m"}}
    api.create(models.model(namespace, change=merged(TRIED, change)))
    first = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    retrain(api, namespace)
    second = trained(api, namespace, mlflow)
    until("copies go to it", lambda: status(api, namespace).get("step") == "shadow", 120)
    assert serving.clients(namespace) == {first}
    until("they are counted", lambda: blocks(api, namespace) >= 0, 60)
    until("half of the requests are its", lambda: serving.clients(namespace) == {first, second}, 120)
    until("it is promoted", lambda: actions(api, namespace)[-1] == "Promote", 180)
    until("clients get it", lambda: serving.clients(namespace) == {second}, 60)
    clients.bad["2"] = 0.5
    until("it is taken back", lambda: actions(api, namespace)[-1] == "RollBack", 120)
    until("the first one answers again", lambda: serving.clients(namespace) == {first}, 60)
    assert status(api, namespace)["ruling"]["reason"] == "HarmAfterPromotion"
    template = "Seldon" if backend == "Seldon" else "Runtime"
    assert f'fiduciary_prometheus_queries_total{{template="{template}"}}' in running.get("/metrics")[1]
    if backend == "Seldon":
        shadow, half, promoted, *_ = serving.edits
        assert [sorted(weights.values()) for weights in (shadow, half, promoted)] == [[100], [50, 50], [0, 100]]
